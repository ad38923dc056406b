"""Mixture of block attention: a query looks at its own block of keys and at the earlier blocks whose mean key it likes
best.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head, M blocks of keys, C keys of
one block, T blocks that a query takes, P pairs of a query and a block that it takes, X tiles of pairs, Z all blocks of
all rows and heads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmine_auto import AttentionCore, AttentionShape, Caps, Choice, Cost, FusedSoftmax, Mask, Mixed, fused_softmax


@dataclass(frozen=True, kw_only=True)
class MoBA(AttentionCore):
    """Softmax over the own block and the `top` earlier blocks that score highest by the product of the query and the
    mean of their keys. The choice itself learns nothing. Time is that of some blocks for each query, and that of the
    choice, which compares each query with every block. Equals causal softmax where no block is left out."""

    name: ClassVar[str] = "moba"
    source: ClassVar[str] = "arXiv:2502.13189"
    caps: ClassVar[Caps] = Caps(
        modes=frozenset({"causal"}),
        masks=frozenset({"padding", "causal"}),
        weights="exact",
        matrix=True,
        fit="finetune",
        decoding="kv",
        normalized=True,
        saves=True,
        scaling=2.0,
    )

    block: Annotated[int, Choice(32, 64, 128)] = 32
    top: Annotated[int, Choice(2, 3, 4)] = 3

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the module; it learns nothing."""
        return _MoBA(self.block, self.top)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Dense softmax over the keys of the taken blocks, and one product with the mean of every block."""
        blocks = -(-length // self.block)
        seen = min(length, (1 + self.top) * self.block)
        numbers = 5.0 * seen * shape.heads + 4.0 * shape.dim * (1 + self.top) + 2.0 * blocks * shape.heads
        return Cost(flops=length * shape.dim * (4.0 * seen + 2.0 * blocks), peak_bytes=4.0 * length * numbers)


class _MoBA(FusedSoftmax):
    def __init__(self, block: int, top: int) -> None:
        super().__init__()
        self.block = block
        self.top = top

    def forward(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, *, weights: bool = False) -> Mixed:
        taken = (1 + self.top) * self.block
        longest = max(q_BHLK.shape[2], k_BGSK.shape[2])
        if weights or longest <= taken:  # `weigh` narrows, and short inputs have nothing to hide
            return super().forward(q_BHLK, k_BGSK, v_BGSK, mask, weights=weights)
        if 2 * longest <= 3 * taken:  # as for windows: blocks pay on longer inputs alone
            return Mixed(fused_softmax(q_BHLK, k_BGSK, v_BGSK, self.narrowed(q_BHLK, k_BGSK, mask)))
        return Mixed(self._by_tiles(q_BHLK, k_BGSK, v_BGSK, mask))

    def weigh(self, q_BHLK: Tensor, k_BGSK: Tensor, mask: Mask, modifiers: Iterable[nn.Module] = ()) -> Tensor:
        return super().weigh(q_BHLK, k_BGSK, self.narrowed(q_BHLK, k_BGSK, mask), modifiers)

    def narrowed(self, q_BHLK: Tensor, k_BGSK: Tensor, mask: Mask) -> Mask:
        """Add the blocks that each query takes to the mask."""
        taken_BHLT, source = self.taken(q_BHLK, k_BGSK, mask), k_BGSK.shape[2]
        none_BHLM = taken_BHLT.new_zeros((*taken_BHLT.shape[:3], -(-source // self.block)), dtype=torch.bool)
        # who takes fewer blocks than others takes all that it may see, and so the first of them already
        seen_BHLM = none_BHLM.scatter(-1, taken_BHLT.clamp(0), True)
        return replace(mask, dense=seen_BHLM.repeat_interleave(self.block, -1)[..., :source])

    @torch.no_grad()
    def taken(self, q_BHLK: Tensor, k_BGSK: Tensor, mask: Mask) -> Tensor:
        """The blocks that each query looks into, (B, H, L, T), its own first; below 0 where there are no more."""
        length, source = q_BHLK.shape[2], k_BGSK.shape[2]
        real_BGMC = self._real(k_BGSK, mask)
        sums_BGMK = (self._blocks(k_BGSK) * real_BGMC[..., None]).sum(-2)
        means_BGMK = sums_BGMK / real_BGMC.sum(-1, keepdim=True)
        likes_BHLM = (q_BHLK.unflatten(1, (k_BGSK.shape[1], -1)) @ means_BGMK[:, :, None].mT).flatten(1, 2)
        own_L1 = torch.arange(source - length, source, device=q_BHLK.device)[:, None] // self.block
        # a mean knows the last key of its block, so only a block that is wholly past may be judged by it
        open_BHLM = real_BGMC.any(-1)[:, :, None] & (torch.arange(means_BGMK.shape[2], device=q_BHLK.device) < own_L1)
        best = likes_BHLM.masked_fill(~open_BHLM, -torch.inf).topk(min(self.top, likes_BHLM.shape[-1]), -1)
        chosen_BHLT = best.indices.masked_fill(best.values == -torch.inf, -1)
        return torch.cat((own_L1.expand(*chosen_BHLT.shape[:3], 1), chosen_BHLT), -1)

    def _by_tiles(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask) -> Tensor:
        """Queries that take the same block share tiles; the softmax runs over what each query has in its tiles."""
        taken_BHLT = self.taken(q_BHLK, k_BGSK, mask)
        tiles = _Tiles(taken_BHLT, self._numbered(taken_BHLT, k_BGSK), self.block)
        k_ZCK, v_ZCK = (self._blocks(x).flatten(0, 2) for x in (k_BGSK, v_BGSK))
        q_XCK = tiles.sort(q_BHLK[:, :, :, None].expand(*taken_BHLT.shape, -1))
        scores_XCC = q_XCK @ k_ZCK.index_select(0, tiles.block_X).mT * q_BHLK.shape[-1] ** -0.5
        keep_BHLTC = self._visible(taken_BHLT, k_BGSK, mask)
        weights_BHLS = self.normalize_some(tiles.back(scores_XCC).flatten(-2), keep_BHLTC.flatten(-2))
        weights_XCC = tiles.sort(weights_BHLS.unflatten(-1, (-1, self.block)))
        return tiles.back(weights_XCC @ v_ZCK.index_select(0, tiles.block_X)).sum(-2)

    def _numbered(self, taken_BHLT: Tensor, k_BGSK: Tensor) -> Tensor:
        """Where the taken blocks stand among the blocks of all rows and heads."""
        (rows, heads), groups = taken_BHLT.shape[:2], k_BGSK.shape[1]
        head_H = torch.arange(heads, device=k_BGSK.device) // (heads // groups)
        row_B1 = torch.arange(rows, device=k_BGSK.device)[:, None]
        before_BH = (row_B1 * groups + head_H) * -(-k_BGSK.shape[2] // self.block)
        return before_BH[..., None, None] + taken_BHLT

    def _visible(self, taken_BHLT: Tensor, k_BGSK: Tensor, mask: Mask) -> Tensor:
        """Which keys of the taken blocks a query sees, (B, H, L, T, C)."""
        (rows, _, length, _), source = taken_BHLT.shape, k_BGSK.shape[2]
        i_L1 = torch.arange(source - length, source, device=k_BGSK.device)[:, None]
        c_C = torch.arange(self.block, device=k_BGSK.device)
        keep_BHLTC = (c_C <= (i_L1 - taken_BHLT * self.block)[..., None]) & (taken_BHLT >= 0)[..., None]
        if mask.padding is None:
            return keep_BHLTC
        row_B111 = torch.arange(rows, device=k_BGSK.device)[:, None, None, None]
        real_BHLTC: Tensor = self._real(k_BGSK, mask)[:, 0][row_B111, taken_BHLT.clamp(0)]
        return keep_BHLTC & real_BHLTC

    def _real(self, k_BGSK: Tensor, mask: Mask) -> Tensor:
        """The keys of each block that are no padding, (B or 1, 1, M, C)."""
        real_BS = k_BGSK.new_ones((1, k_BGSK.shape[2]), dtype=torch.bool) if mask.padding is None else mask.padding
        return self._blocks(real_BS[:, None, :, None])[..., 0]

    def _blocks(self, x_BGSK: Tensor) -> Tensor:
        """Cut into blocks, (B, G, M, C, K), with zeros behind."""
        x_BGMCK: Tensor = F.pad(x_BGSK, (0, 0, 0, -x_BGSK.shape[2] % self.block)).unflatten(2, (-1, self.block))
        return x_BGMCK


class _Tiles:
    """Pairs of a query and a block that it takes, sorted by block into tiles of `size` pairs of one block."""

    def __init__(self, taken_BHLT: Tensor, number_BHLT: Tensor, size: int) -> None:
        self.shape, self.size = taken_BHLT.shape, size
        self.pair_P = (taken_BHLT >= 0).flatten().nonzero()[:, 0]
        number_P = number_BHLT.flatten()[self.pair_P]
        count_Z = torch.bincount(number_P)
        tiles_Z = -(-count_Z // size)
        self.block_X = torch.arange(len(tiles_Z), device=tiles_Z.device).repeat_interleave(tiles_Z)
        # how far the slots of a block stand behind the ranks of its pairs
        gap_Z = (tiles_Z.cumsum(0) - tiles_Z) * size - (count_Z.cumsum(0) - count_Z)
        order_P = number_P.argsort()
        rank_P = torch.empty_like(order_P).index_copy(0, order_P, torch.arange(len(order_P), device=order_P.device))
        self.slot_P = rank_P + gap_Z[number_P]

    def sort(self, x_BHLTK: Tensor) -> Tensor:
        """Bring what each pair has into tiles, (X, C, K); slots that no pair fills hold zeros."""
        x_PK = x_BHLTK.flatten(0, 3).index_select(0, self.pair_P)
        slots = (len(self.block_X) * self.size, x_PK.shape[-1])
        x_XCK: Tensor = x_PK.new_zeros(slots).index_copy(0, self.slot_P, x_PK).unflatten(0, (-1, self.size))
        return x_XCK

    def back(self, x_XCK: Tensor) -> Tensor:
        """Bring it back, (B, H, L, T, K); where a query takes fewer blocks stand zeros."""
        x_PK = x_XCK.flatten(0, 1).index_select(0, self.slot_P)
        x_QK = x_PK.new_zeros((self.shape.numel(), x_PK.shape[-1])).index_copy(0, self.pair_P, x_PK)
        x_BHLTK: Tensor = x_QK.unflatten(0, self.shape)
        return x_BHLTK
