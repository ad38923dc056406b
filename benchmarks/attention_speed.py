"""How fast is each attention variant beside torch's own softmax attention, and how much memory does it take?

    python benchmarks/attention_speed.py [--lengths 128 512 2048 8192] [--heads 4] [--head-dim 64]

One thread, one row, float32, forward and backward. Time is the median of process CPU time, so that a busy machine shows
less; memory is the peak of a process of its own above its inputs. Every ratio is of numbers from the same run.
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
from importlib import import_module
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

PLUGINS = {
    "multi_head": "MultiHead()",
    "grouped_query": "GroupedQuery()",
    "sliding_window": "SlidingWindow(window=64)",
    "linear": "Linear()",
    "entmax": "Entmax()",
    "additive": "Additive()",
    "differential": "Differential()",
}
SECONDS = 3.0
AT_MOST = 15
DENSE_LIMIT = 2048
"""The longest input for variants that keep the whole weight matrix."""
KEEPS_WEIGHTS = {"entmax", "additive"}


def step_of(name: str, length: int, heads: int, head_dim: int, causal: bool) -> Callable[[], None]:
    """One forward and backward pass over inputs that are made once."""
    import torch
    from torch.nn import functional as F

    from deepmine_auto import AttentionMixer, AttentionShape, Mask

    torch.set_num_threads(1)
    torch.manual_seed(0)
    mode = "causal" if causal else "bidirectional"
    mask = Mask(causal=causal)
    plugin = None
    if name != "sdpa":
        module = import_module(f"deepmine_plugins.attention.{name}")
        plugin = eval(PLUGINS[name], vars(module))
    shape = AttentionShape(dim=heads * head_dim, heads=heads, kv_heads=heads, max_len=length, mode=mode)
    shape = plugin.adapt(shape) if plugin else shape
    q, towards = torch.randn(2, 1, heads, length, head_dim)
    k, v = torch.randn(2, 1, shape.kv_heads, length, head_dim).requires_grad_()
    q.requires_grad_()
    if plugin is None:
        return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal).backward(towards)
    built = plugin.build(shape)
    if isinstance(plugin, AttentionMixer):
        x_BLD = torch.randn(1, length, shape.dim, requires_grad=True)
        towards_BLD = torch.randn(1, length, shape.dim)
        return lambda: built(x_BLD, mask, None, weights=False)[0].out.backward(towards_BLD)
    return lambda: built(q, k, v, mask, weights=False).out.backward(towards)


def measured(step: Callable[[], None]) -> dict[str, float]:
    """Median milliseconds, and peak megabytes above what stood before the first step."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step()
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    times: list[float] = []
    while not times or (sum(times) < SECONDS and len(times) < AT_MOST):
        start = time.process_time()
        step()
        times.append(time.process_time() - start)
    return {"ms": 1000 * statistics.median(times), "mb": peak}


def in_own_process(name: str, length: int, arguments: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, str(Path(__file__).resolve()), "--one", name, "--lengths", str(length)]
    command += ["--heads", str(arguments.heads), "--head-dim", str(arguments.head_dim)]
    command += ["--causal"] if arguments.causal else []
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def table(arguments: argparse.Namespace) -> None:
    print(f"{'length':>7} {'variant':<16} {'ms':>9} {'SDPA / it':>10} {'peak MB':>8}")
    for length in arguments.lengths:
        sdpa = in_own_process("sdpa", length, arguments)
        print(f"{length:>7} {'SDPA':<16} {sdpa['ms']:>9.2f} {'1.00':>10} {sdpa['mb']:>8.0f}")
        for name in PLUGINS:
            if name in KEEPS_WEIGHTS and length > DENSE_LIMIT:
                continue
            found = in_own_process(name, length, arguments)
            print(f"{length:>7} {name:<16} {found['ms']:>9.2f} {sdpa['ms'] / found['ms']:>10.2f} {found['mb']:>8.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512, 2048, 8192])
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--causal", action="store_true")
    parser.add_argument("--one", choices=["sdpa", *PLUGINS], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        step = step_of(arguments.one, arguments.lengths[0], arguments.heads, arguments.head_dim, arguments.causal)
        print(json.dumps(measured(step)))
    else:
        table(arguments)


if __name__ == "__main__":
    main()
