"""Window attention with global tokens: a token looks at its neighbours and at the first tokens, which look at all.

Shapes: L length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import nn

from deepmine_auto import AttentionCore, AttentionShape, Caps, Choice, Cost, Int, WindowSoftmax


@dataclass(frozen=True, kw_only=True)
class GlobalWindow(AttentionCore):
    """Softmax over `window` tokens to each side and the first `first` tokens, by which far tokens hear of each other.
    The first tokens see every token, and where attention is causal those before them alone. They share the projections
    of the others. Time and memory grow with L times window."""

    name: ClassVar[str] = "global_window"
    source: ClassVar[str] = "arXiv:2004.05150"
    caps: ClassVar[Caps] = Caps(
        modes=frozenset({"bidirectional", "causal"}),
        masks=frozenset({"padding", "causal", "window"}),
        weights="exact",
        matrix=True,
        fit="finetune",
        decoding="kv",
        normalized=True,
        scaling=1.0,
        dtypes=frozenset({"float64", "float32", "bfloat16", "float16"}),
    )

    window: Annotated[int, Int(16, 512, log=True)] = 64
    first: Annotated[int, Choice(1, 2, 4, 8)] = 1

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the module; it learns nothing."""
        return WindowSoftmax(self.window, self.first)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Dense softmax over the keys that a block reads, and over all keys for the first queries."""
        module = WindowSoftmax(self.window, self.first)
        seen = min(length, module.width + self.first)
        copies = 2.0 * seen / module.block
        return Cost(flops=4.0 * length * seen * shape.dim, peak_bytes=4.0 * length * (2 * seen + copies * shape.dim))
