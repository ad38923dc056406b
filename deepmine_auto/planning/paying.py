"""Which attention variants pay: how long each takes beside softmax on this device, measured once and kept.

A variant that offers nothing but to be cheaper is not searched where it is dearer, and none where a row of the data
would not fit into memory.

Shapes: B batch, L length, D dim.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from deepmine_auto import cache
from deepmine_auto.contracts import Attention, AttentionCore, AttentionModifier, AttentionShape, Caps, Mode
from deepmine_auto.errors import first_line
from deepmine_auto.sources import hash_of

if TYPE_CHECKING:
    from torch import nn

LENGTHS = (64, 1024)
"""Lengths that are measured; others are reckoned between and beyond them by the variant's own `cost`."""

TOKENS = {"cpu": 2_048, "cuda": 32_768}
"""So many are computed at a time: a GPU takes as long for fewer."""

REPEATS = 5
DIM, HEADS = 64, 4
MEMORY_SHARE = 0.5
"""The share of the device's memory that the attention of one row may take in one layer."""


@dataclass(frozen=True, kw_only=True)
class Softmax(AttentionCore):
    """What others are compared with: torch's fused kernel."""

    name: ClassVar[str] = "softmax"
    source: ClassVar[str] = "arXiv:1706.03762"
    caps: ClassVar[Caps] = Caps.everywhere()

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the module."""
        from deepmine_auto.model.softmax import FusedSoftmax

        return FusedSoftmax()


class Pace(NamedTuple):
    """Seconds of a training step of one layer: for each operation that `cost` declares, and for each token."""

    a_flop: float
    a_token: float

    def seconds(self, variant: Attention, length: int) -> float:
        """What one row of so many tokens takes."""
        return self.a_flop * variant.cost(_shape(length), length).flops + self.a_token * length


def reasons(variants: Mapping[str, type[Attention]], median: int, longest: int) -> list[str]:
    """Say which variants do not pay at the median length, do not fit at the longest, or cannot say what they cost, and
    why: `NAME ...`."""
    from deepmine_auto.training.loop import device_here

    device = device_here()
    found = (_reason(name, each, median, longest, device) for name, each in variants.items())
    return [each for each in found if each]


def _reason(name: str, cls: type[Attention], median: int, longest: int, device: Any) -> str:
    """Why one variant is left out, or an empty string."""
    try:
        return _too_large(name, cls(), longest, _memory(device)) or _too_slow(name, cls, median, _device_name(device))
    except Exception as error:  # its promises were not asked for, or do not hold for these lengths
        return f"{name} cannot be measured: {type(error).__name__}: {first_line(error)}"


def _too_slow(name: str, cls: type[Attention], length: int, device: str) -> str:
    if not cls.caps.saves or issubclass(cls, AttentionModifier):
        return ""
    paces = known_paces({Softmax.name: Softmax, name: cls}, device)
    ratio = paces[name].seconds(cls(), length) / paces[Softmax.name].seconds(Softmax(), length)
    if ratio <= 1.0:
        return ""
    return f"{name} takes {ratio:.1f} times as long as softmax at {length} tokens, and only saves time"


def _too_large(name: str, variant: Attention, length: int, memory: float) -> str:
    bytes_a_row = variant.cost(_shape(length), length).peak_bytes
    if bytes_a_row <= MEMORY_SHARE * memory:
        return ""
    return f"{name} would take {bytes_a_row / 1e9:.1f} GB for one row of {length} tokens"


def _shape(length: int, mode: Mode = "bidirectional") -> AttentionShape:
    return AttentionShape(dim=DIM, heads=HEADS, kv_heads=HEADS, max_len=max(length, *LENGTHS), mode=mode)


def _memory(device: Any) -> float:
    """Bytes that the device has."""
    if device.type == "cuda":
        import torch

        return float(torch.cuda.get_device_properties(device).total_memory)
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _device_name(device: Any) -> str:
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu {os.uname().machine}, one thread"
    return f"{name}, torch {torch.__version__}"


# -- measured once -----------------------------------------------------------------------------------------------------


def known_paces(variants: Mapping[str, type[Attention]], device: str) -> dict[str, Pace]:
    """The paces of variants on this device: those that are kept, and the others measured and kept."""
    from deepmine_auto.executors.inline import one_thread

    kept, keys = cache.read("paces"), {name: _key(each) for name, each in variants.items()}
    here: dict[str, list[float]] = kept.setdefault(device, {})
    new = {name: each for name, each in variants.items() if keys[name] not in here}
    with one_thread():  # as a worker trains
        for name, each in new.items():
            here[keys[name]] = [*measured(each())]
    if new:
        cache.write("paces", kept)
    return {name: Pace(*here[key]) for name, key in keys.items()}


def _key(variant: type[Attention]) -> str:
    """A variant as its code is now: what was measured before an edit says nothing of it."""
    code = "" if variant is Softmax else hash_of(variant.__module__)
    return f"{variant.__module__}:{variant.__qualname__} {code}"


def measured(variant: Attention) -> Pace:
    """Measure a variant at two lengths, forward and backward, and solve for both numbers."""
    short, long = (_seconds_a_row(variant, length) for length in LENGTHS)
    few, many = (variant.cost(_shape(length), length).flops for length in LENGTHS)
    # seconds = a_flop * flops + a_token * length, at both lengths; neither is below zero
    determinant = few * LENGTHS[1] - many * LENGTHS[0]
    a_flop = (short * LENGTHS[1] - long * LENGTHS[0]) / determinant if determinant else 0.0
    a_token = (few * long - many * short) / determinant if determinant else long / LENGTHS[1]
    if a_flop < 0 or a_token < 0:
        return Pace(0.0, long / LENGTHS[1]) if a_flop < 0 else Pace(long / many, 0.0)
    return Pace(a_flop, a_token)


def _seconds_a_row(variant: Attention, length: int) -> float:
    from deepmine_auto.training.loop import device_here

    rows = max(1, TOKENS[device_here().type] // length)
    return statistics.median(_times(_step(variant, rows, length))) / rows


def _step(variant: Attention, rows: int, length: int) -> Callable[[], None]:
    import torch

    from deepmine_auto.model.mask import Mask
    from deepmine_auto.model.multi_head import token_mixer
    from deepmine_auto.training.loop import device_here

    modes: tuple[Mode, ...] = ("bidirectional", "causal")
    mode = next(each for each in modes if each in variant.caps.modes)
    device = device_here()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        layer = token_mixer(variant, [], replace(_shape(length), mode=mode)).to(device)
        x_BLD = torch.randn(rows, length, DIM, device=device, requires_grad=True)

    def step() -> None:
        layer(x_BLD, Mask(causal=mode == "causal"))[0].out.sum().backward()
        if x_BLD.is_cuda:
            torch.cuda.synchronize()

    return step


def _times(step: Callable[[], None]) -> Iterator[float]:
    step()
    for _ in range(REPEATS):
        start = time.perf_counter()
        step()
        yield time.perf_counter() - start
