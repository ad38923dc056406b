"""Our own encoder, trained from scratch on the task, over pretrained word vectors where the task brings them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import nn

from deepmine_auto import AttentionShape, Backbone, Choice, Float, Int, Prepared, StackDesign, TransformerStack


@dataclass(frozen=True, kw_only=True)
class Encoder(Backbone):
    """Pre-norm blocks, small on purpose: what a few thousand rows can teach."""

    name: ClassVar[str] = "encoder"
    source: ClassVar[str] = "arXiv:2002.04745"

    depth: Annotated[int, Int(1, 6)] = 2
    dim: Annotated[int, Choice(32, 64, 96, 128, 192, 256)] = 128
    heads: Annotated[int, Choice(2, 4, 8)] = 4
    widen: Annotated[int, Choice(1, 2, 4)] = 2
    dropout: Annotated[float, Float(0.0, 0.6)] = 0.2
    train_vectors: Annotated[bool, Choice(False, True)] = True
    neighbours: Annotated[bool, Choice(False, True)] = False

    def build(self, prepared: Prepared, attention: Callable[[AttentionShape], nn.Module]) -> nn.Module:
        """Return a stack of blocks over the task's vocabulary."""
        shape = AttentionShape(dim=self.dim, heads=self.heads, kv_heads=self.heads, max_len=prepared.max_len)
        design = StackDesign(
            depth=self.depth,
            widen=self.widen,
            dropout=self.dropout,
            train_vectors=self.train_vectors,
            neighbours=self.neighbours,
        )
        return TransformerStack(prepared, attention, shape, design)
