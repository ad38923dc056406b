"""BigBird attention: blocks of tokens look at their neighbours, at the first block, which looks at all, and at a few
blocks that chance picks once.

Shapes: L length, N blocks of queries, M blocks of keys, R random blocks, C tokens of one block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import AttentionCore, AttentionShape, Caps, Choice, Cost, Int, Pattern, SparseSoftmax

NEAR = 3
"""A block, the one before and the one after it."""


@dataclass(frozen=True, kw_only=True)
class BigBird(AttentionCore):
    """Softmax over the own block, one block to each side, the first block and `random` others. Which these are follows
    from the seed, the layer and the longest input of the model, and all heads share them: a text that ends before some
    of them has fewer, however much padding follows it. Equals multi-head attention where no block is left out."""

    name: ClassVar[str] = "bigbird"
    source: ClassVar[str] = "arXiv:2007.14062"
    caps: ClassVar[Caps] = Caps(
        modes=frozenset({"bidirectional"}),
        masks=frozenset({"padding", "window"}),
        weights="exact",
        matrix=True,
        fit="finetune",
        normalized=True,
        saves=True,
        scaling=1.0,
        dtypes=frozenset({"float64", "float32", "bfloat16", "float16"}),
    )

    block: Annotated[int, Choice(16, 32, 64, 128)] = 64
    random: Annotated[int, Int(1, 5)] = 3
    seed: int = 0

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the module; it learns nothing."""
        return _BigBird(self.block, self.random, self.seed + shape.layer, shape.max_len)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Dense softmax over the keys that a block reads, and over all keys for the first block."""
        seen = min(length, (NEAR + 1 + self.random + 1) * self.block)
        copies = 2.0 * seen / self.block
        return Cost(flops=4.0 * length * seen * shape.dim, peak_bytes=4.0 * length * (2 * seen + copies * shape.dim))


class _BigBird(SparseSoftmax):
    def __init__(self, block: int, random: int, seed: int, max_len: int) -> None:
        super().__init__(block, whole=NEAR * block, rows=block)
        self.random = random
        self.seed = seed
        self.most = -(-max_len // block)

    def pattern(self, source: int, device: torch.device) -> Pattern:
        chosen_NR, block = self._chosen(source), self.block
        last = len(chosen_NR) - 1
        m_N = torch.arange(last + 1)
        seen_NM = (_always(m_N) | (chosen_NR[..., None] == m_N).any(1)).to(device)
        return lambda i, j: seen_NM[(i // block).clamp(0, last), (j // block).clamp(0, last)]

    def alike(self) -> object:
        return "bigbird", self.block, self.random, self.seed, self.most

    def reads(self, n_N: Tensor, source: int, causal: bool) -> Tensor:
        near_N3 = n_N[:, None] + torch.arange(-1, 2, device=n_N.device)
        chosen_NR = self._chosen(source).to(n_N.device)[n_N.clamp(0)]
        m_NM = torch.cat((torch.zeros_like(near_N3[:, :1]), near_N3.masked_fill(near_N3 <= 0, -1), chosen_NR), 1)
        return (m_NM[..., None] * self.block + torch.arange(self.block, device=n_N.device)).flatten(1)

    def _chosen(self, source: int) -> Tensor:
        """The random blocks of each block, (N, R), none that it sees anyway; -1 where there are no more. Those of an
        input as long as may be are drawn, because a draw for a batch would follow from its longest text."""
        blocks = -(-source // self.block)
        m_M = torch.arange(max(blocks, self.most))
        luck_MM = torch.rand(len(m_M), len(m_M), generator=torch.Generator().manual_seed(self.seed))
        best = luck_MM.masked_fill(_always(m_M), -1.0).topk(min(self.random, len(m_M)), -1)
        return best.indices.masked_fill(best.values < 0.0, -1)[:blocks]


def _always(m_M: Tensor) -> Tensor:
    """Which blocks each block sees without chance, (M, M)."""
    return ((m_M[:, None] - m_M).abs() <= 1) | (m_M == 0)
