"""Our own decoder: an encoder whose tokens see nothing that comes later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import nn

from deepmine_auto import AttentionShape, Backbone, Choice, Float, Int, Mode, Prepared, StackDesign, TransformerStack


@dataclass(frozen=True, kw_only=True)
class Decoder(Backbone):
    """Pre-norm blocks with causal attention. It decodes step by step, with keys and values or a state kept."""

    name: ClassVar[str] = "decoder"
    source: ClassVar[str] = "arXiv:1706.03762"
    modes: ClassVar[frozenset[Mode]] = frozenset({"causal"})

    depth: Annotated[int, Int(1, 6)] = 2
    dim: Annotated[int, Choice(32, 64, 96, 128, 192, 256)] = 128
    heads: Annotated[int, Choice(2, 4, 8)] = 4
    widen: Annotated[int, Choice(1, 2, 4)] = 2
    dropout: Annotated[float, Float(0.0, 0.6)] = 0.1

    def build(self, prepared: Prepared, attention: Callable[[AttentionShape], nn.Module]) -> nn.Module:
        """Return a stack of blocks over the task's vocabulary."""
        shape = AttentionShape(
            dim=self.dim, heads=self.heads, kv_heads=self.heads, max_len=prepared.max_len, mode="causal"
        )
        design = StackDesign(depth=self.depth, widen=self.widen, dropout=self.dropout, train_vectors=True)
        return TransformerStack(prepared, attention, shape, design)
