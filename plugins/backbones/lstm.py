"""LSTMs on both sides with attention between them: Bahdanau, Luong, and what many older systems still run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import nn

from deepmine_auto import AttentionShape, Backbone, Choice, Float, Int, Mode, Prepared, RecurrentPair, StackDesign


@dataclass(frozen=True, kw_only=True)
class Lstm(Backbone):
    """A bidirectional reader and a writer. With `feeding`, each step reads what the last one saw."""

    name: ClassVar[str] = "lstm"
    source: ClassVar[str] = "arXiv:1508.04025"
    modes: ClassVar[frozenset[Mode]] = frozenset({"cross"})
    pairs: ClassVar[bool] = True

    depth: Annotated[int, Int(1, 6)] = 2
    dim: Annotated[int, Choice(32, 64, 96, 128, 192, 256)] = 128
    heads: Annotated[int, Choice(2, 4, 8)] = 4
    dropout: Annotated[float, Float(0.0, 0.6)] = 0.1
    feeding: Annotated[bool, Choice(False, True)] = False

    def build(self, prepared: Prepared, attention: Callable[[AttentionShape], nn.Module]) -> nn.Module:
        """Return both LSTMs over the task's vocabulary. Raises BadInput for a task without source and target."""
        shape = AttentionShape(dim=self.dim, heads=self.heads, kv_heads=self.heads, max_len=prepared.max_len)
        design = StackDesign(depth=self.depth, dropout=self.dropout, train_vectors=True)
        return RecurrentPair(prepared, attention, shape, design, self.feeding)
