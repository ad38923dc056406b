"""An encoder for the source, and a decoder that looks at it, for tasks that answer with a sequence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import nn

from deepmine_auto import AttentionShape, Backbone, Choice, Float, Int, Mode, PairOfStacks, Prepared, StackDesign


@dataclass(frozen=True, kw_only=True)
class EncoderDecoder(Backbone):
    """As many blocks on both sides; the variant is used for all three: source, target, and between them."""

    name: ClassVar[str] = "encoder_decoder"
    source: ClassVar[str] = "arXiv:1706.03762"
    modes: ClassVar[frozenset[Mode]] = frozenset({"bidirectional", "causal", "cross"})
    pairs: ClassVar[bool] = True

    depth: Annotated[int, Int(1, 6)] = 2
    dim: Annotated[int, Choice(32, 64, 96, 128, 192, 256)] = 128
    heads: Annotated[int, Choice(2, 4, 8)] = 4
    widen: Annotated[int, Choice(1, 2, 4)] = 2
    dropout: Annotated[float, Float(0.0, 0.6)] = 0.1

    def build(self, prepared: Prepared, attention: Callable[[AttentionShape], nn.Module]) -> nn.Module:
        """Return both stacks over the task's vocabulary. Raises BadInput for a task without source and target."""
        shape = AttentionShape(dim=self.dim, heads=self.heads, kv_heads=self.heads, max_len=prepared.max_len)
        design = StackDesign(depth=self.depth, widen=self.widen, dropout=self.dropout, train_vectors=True)
        return PairOfStacks(prepared, attention, shape, design)
