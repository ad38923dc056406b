"""Strided sparse attention: a token looks at its own block and at the last columns of every other, which sum it up.

Shapes: L length, N blocks of queries, M blocks of keys, C tokens of one block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import AttentionCore, AttentionShape, Caps, Choice, Cost, Pattern, SparseSoftmax


@dataclass(frozen=True, kw_only=True)
class Strided(AttentionCore):
    """Softmax over the own block of `block` tokens and the last `columns` of every other block, or of the earlier ones
    where attention is causal: the fixed pattern of the paper, both parts in each head. Without columns it is the local
    attention of blocks that never hear of each other. Time grows with L squared still, times columns / block."""

    name: ClassVar[str] = "strided"
    source: ClassVar[str] = "arXiv:1904.10509"
    caps: ClassVar[Caps] = Caps(
        modes=frozenset({"bidirectional", "causal"}),
        masks=frozenset({"padding", "causal", "window"}),
        weights="exact",
        matrix=True,
        fit="finetune",
        decoding="kv",
        normalized=True,
        saves=True,
        scaling=2.0,
        dtypes=frozenset({"float64", "float32", "bfloat16", "float16"}),
    )

    block: Annotated[int, Choice(32, 64, 128)] = 64
    columns: Annotated[int, Choice(0, 4, 8, 16)] = 8

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the module; it learns nothing."""
        return _Strided(self.block, self.columns)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Dense softmax over the keys that a block reads, of which each block holds a copy."""
        seen = min(length, self.block - self.columns + self.columns * -(-length // self.block))
        copies = 2.0 * seen / self.block
        return Cost(flops=4.0 * length * seen * shape.dim, peak_bytes=4.0 * length * (2 * seen + copies * shape.dim))


class _Strided(SparseSoftmax):
    def __init__(self, block: int, columns: int) -> None:
        super().__init__(block, whole=block)
        self.columns = columns

    def pattern(self, source: int, device: torch.device) -> Pattern:
        block, columns = self.block, self.columns
        return lambda i, j: (i // block == j // block) | (j % block >= block - columns)

    def alike(self) -> object:
        return "strided", self.block, self.columns

    def reads(self, n_N: Tensor, source: int, causal: bool) -> Tensor:
        own_NC = n_N[:, None] * self.block + torch.arange(self.block - self.columns, device=n_N.device)
        ends_M = torch.arange(self.block, source + self.block, self.block, device=n_N.device)
        columns = (ends_M[:, None] - torch.arange(self.columns, 0, -1, device=n_N.device)).flatten()
        return torch.cat((own_NC, columns.expand(len(n_N), -1)), 1)
