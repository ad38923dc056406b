"""How fast is each attention variant beside the best public formulation of its mathematics, and beside torch's own
softmax attention, and how much memory does it take?

    python benchmarks/attention_speed.py [VARIANT ...] [--lengths 128 512 2048 8192] [--causal] [--heads 4]

One thread, one row, float32, forward and backward. Time is the median of process CPU time, so that a busy machine
shows less; memory is the peak of a process of its own above its inputs. A core is measured alone, a modifier or mixer
with its projections, and its peer likewise. Ours and the peer take turns in one process; every ratio is of numbers from
there.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

FIELDS: dict[str, dict[str, Any]] = {
    "sliding_window": {"window": 64},
    "performer": {"features": 128},
    "nystrom": {"landmarks": 64},
    "linformer": {"rank": 64},
    "top_k": {"k": 8},
}
"""Fields that a peer has too."""

LARGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}
"""As in a search's workers. Without it the memory that a step takes and gives back page by page can double its time."""

SECONDS = 1.5
AT_MOST = 15
DENSE_LIMIT = 2048
"""The longest input for what grows with the square of the length and keeps the whole matrix."""

Step = Callable[[], None]


def variant_of(name: str) -> Any:
    """An installed variant."""
    from deepmine_auto.host import the_host

    cls = the_host().get("attention", name)
    known = {field: value for field, value in FIELDS.get(name, {}).items() if field in cls.__dataclass_fields__}
    return cls(**known)


def steps(name: str, length: int, asked: argparse.Namespace) -> dict[str, Step]:
    """One forward and backward pass of ours, of its peer where there is one, and of SDPA, over like inputs."""
    import attention_peers as peers
    import torch

    from deepmine_auto import AttentionCore, AttentionModifier, AttentionShape, Mask
    from deepmine_auto.model.multi_head import token_mixer

    torch.set_num_threads(1)
    torch.manual_seed(0)
    variant, dim = variant_of(name), asked.heads * asked.head_dim
    mode = "causal" if asked.causal else "bidirectional"
    shape = AttentionShape(dim=dim, heads=asked.heads, kv_heads=asked.heads, max_len=length, mode=mode)
    mask = Mask(causal=asked.causal)
    if isinstance(variant, AttentionCore):
        shape = variant.adapt(shape)
        q = torch.randn(1, asked.heads, length, asked.head_dim, requires_grad=True)
        k, v = torch.randn(2, 1, shape.kv_heads, length, asked.head_dim).requires_grad_()
        towards, built = torch.randn_like(q), variant.build(shape)
        found = {"ours": lambda: built(q, k, v, mask, weights=False).out.backward(towards)}
        if name in peers.CORES:
            peer = peers.CORES[name][1](asked.causal)
            found["peer"] = lambda: peer(q, k, v).reshape(q.shape).backward(towards)
        elif name in peers.LAYERS:
            return layers(name, token_mixer(variant, [], shape), shape, length, asked)
        whole = peers.grouped(asked.causal) if shape.kv_heads != asked.heads else peers.sdpa(asked.causal)
        return {**found, "sdpa": lambda: whole(q, k, v).backward(towards)}
    if isinstance(variant, AttentionModifier):
        return layers(name, token_mixer(variant_of("multi_head"), [variant], shape), shape, length, asked)
    return layers(name, token_mixer(variant, [], shape), shape, length, asked)


def layers(name: str, ours: Any, shape: Any, length: int, asked: argparse.Namespace) -> dict[str, Step]:
    """The same, of whole layers with their projections."""
    import attention_peers as peers
    import torch

    from deepmine_auto import Mask

    x_BLD = torch.randn(1, length, shape.dim, requires_grad=True)
    towards, mask = torch.randn(1, length, shape.dim), Mask(causal=asked.causal)
    plain = peers.Mixing(shape.dim, asked.heads, peers.sdpa(asked.causal))
    found: dict[str, Step] = {"ours": lambda: ours(x_BLD, mask, None)[0].out.backward(towards)}
    if name in peers.CORES:
        peer = peers.Mixing(shape.dim, asked.heads, peers.CORES[name][1](asked.causal))
        found["peer"] = lambda: peer(x_BLD).backward(towards)
    elif name in peers.LAYERS:
        layer = peers.LAYERS[name][1](shape.dim, asked.heads, length)
        found["peer"] = lambda: layer(x_BLD).backward(towards)
    return {**found, "sdpa": lambda: plain(x_BLD).backward(towards)}


def measured(name: str, asked: argparse.Namespace) -> dict[str, float]:
    """Median milliseconds of each, in turns; and the peak megabytes of ours alone, which goes first."""
    found = steps(name, asked.lengths[0], asked)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found["ours"]()
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    times: dict[str, list[float]] = {each: [] for each in found}
    for each in found.values():
        each()
    while not times["ours"] or (sum(map(sum, times.values())) < SECONDS * len(found) and len(times["ours"]) < AT_MOST):
        for each, step in found.items():
            start = time.process_time()
            step()
            times[each].append(time.process_time() - start)
    return {"mb": peak, **{each: 1000 * statistics.median(taken) for each, taken in times.items()}}


def in_own_process(name: str, length: int, asked: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, str(Path(__file__).resolve()), name, "--one", "--lengths", str(length)]
    command += ["--heads", str(asked.heads), "--head-dim", str(asked.head_dim), *["--causal"] * asked.causal]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **LARGE_PAGES})
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def line(name: str, length: int, found: dict[str, float], peer: str) -> str:
    beside = f"{found['ours'] / found['peer']:>6.2f} x {peer}" if "peer" in found else ""
    return (f"{length:>7} {name:<20} {found['ours']:>9.2f} {found['sdpa'] / found['ours']:>10.2f} "
            f"{found['mb']:>8.0f} {beside}")  # fmt: skip


def table(asked: argparse.Namespace) -> None:
    import attention_peers as peers

    from deepmine_auto.host import the_host

    offered = {name: each.thing for name, each in the_host().offered("attention").items()}
    mode = "causal" if asked.causal else "bidirectional"
    names = asked.variants or [name for name, each in offered.items() if mode in each.caps.modes]
    print(f"{'length':>7} {'variant':<20} {'ms':>9} {'SDPA / it':>10} {'peak MB':>8}  it / peer")
    for length in asked.lengths:
        for name in names:
            if (
                length > DENSE_LIMIT
                and offered[name].caps.scaling > 1.6
                and name not in ("multi_head", "grouped_query")
            ):
                continue
            peer = (peers.CORES | peers.LAYERS).get(name, ("",))[0]
            try:
                print(line(name, length, in_own_process(name, length, asked), peer), flush=True)
            except subprocess.CalledProcessError as error:
                print(
                    f"{length:>7} {name:<20} {(error.stderr.strip().splitlines() or ['failed'])[-1][:90]}", flush=True
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*")
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512, 2048, 8192])
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--causal", action="store_true")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measured(asked.variants[0], asked)))
    else:
        table(asked)


if __name__ == "__main__":
    main()
