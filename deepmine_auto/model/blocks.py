"""Softmax over a pattern of positions, by blocks: a block of queries reads only the keys that some query of it may see.
On CUDA, FlexAttention does the same by one kernel.

Positions are those of keys, 0 .. S - 1; the last query stands at the last key.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head, N blocks of queries,
C queries of one block, W keys that one block reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmine_auto.contracts import Mixed
from deepmine_auto.model import flex
from deepmine_auto.model.flex import Pattern
from deepmine_auto.model.mask import Mask
from deepmine_auto.model.softmax import FusedSoftmax, fused_softmax

MOST_BLOCK_MASKS = 128
"""So many are kept, each of a pattern and a length."""

_block_masks: dict[tuple[object, ...], Any] = {}
"""Those of all layers, and of all trials of a process."""


class SparseSoftmax(FusedSoftmax):
    """Softmax attention over the pairs of positions that `pattern` allows; where it is not causal, queries at the first
    `rows` positions may see every key besides. A variant says its pattern by `pattern` and, to be fast, by `reads` and
    `alike`. On inputs of up to `whole` tokens it hides nothing."""

    def __init__(self, block: int, whole: int, rows: int = 0) -> None:
        super().__init__()
        self.block = block
        self.whole = whole
        self.rows = rows
        self._alone = object()

    def pattern(self, source: int, device: torch.device) -> Pattern:
        """Return what says whether queries at positions i see keys at positions j; here they see all."""
        return lambda i, j: torch.ones_like(i + j, dtype=torch.bool)

    def alike(self) -> object:
        """Return what is equal for modules of the same pattern and `rows` alone: they share their block masks. Here a
        module shares with none."""
        return self._alone

    def reads(self, n_N: Tensor, source: int, causal: bool) -> Tensor:
        """Return the positions of the keys that each block of queries needs, (N, W), none of them twice; what is
        outside of 0 .. S - 1 stands for no key. Here it is every key."""
        return torch.arange(source, device=n_N.device).expand(len(n_N), source)

    def narrowed(self, q_BHLK: Tensor, k_BGSK: Tensor, mask: Mask) -> Mask:
        """Add the pattern to the mask."""
        length, source = q_BHLK.shape[2], k_BGSK.shape[2]
        i_L1 = torch.arange(source - length, source, device=q_BHLK.device)[:, None]
        j_S = torch.arange(source, device=q_BHLK.device)
        free_L1 = torch.arange(length, device=q_BHLK.device)[:, None] < self._free(length, source, mask)
        return replace(mask, dense=self.pattern(source, q_BHLK.device)(i_L1, j_S) | free_L1)

    def _free(self, length: int, source: int, mask: Mask) -> int:
        """How many of the queries, from the first on, may see every key."""
        return 0 if mask.causal or not self.rows else min(length, max(0, self.rows - (source - length)))

    def weigh(self, q_BHLK: Tensor, k_BGSK: Tensor, mask: Mask, modifiers: Iterable[nn.Module] = ()) -> Tensor:
        """Return the weights (B, H, L, S) within the pattern."""
        return super().weigh(q_BHLK, k_BGSK, self.narrowed(q_BHLK, k_BGSK, mask), modifiers)

    def forward(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, *, weights: bool = False) -> Mixed:
        """Mix values; weights (B, H, L, S) come with them when asked for."""
        length, source = q_BHLK.shape[2], k_BGSK.shape[2]
        if weights or max(length, source) <= self.whole:  # `weigh` narrows
            return super().forward(q_BHLK, k_BGSK, v_BGSK, mask, weights=weights)
        if flex.serves(q_BHLK, v_BGSK, mask):
            blocks, padding = self._blocks(q_BHLK, k_BGSK, mask), flex.score_mod(mask.padding)
            out_BHLK = flex.compiled_softmax(q_BHLK, k_BGSK, v_BGSK, blocks, padding)
            if out_BHLK is not None:
                return Mixed(out_BHLK)
        return Mixed(self._without_flex(q_BHLK, k_BGSK, v_BGSK, mask))

    def _without_flex(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask) -> Tensor:
        """By blocks of our own, or by a mask on inputs where these do not pay."""
        length, source = q_BHLK.shape[2], k_BGSK.shape[2]
        n_N = torch.arange((source - length) // self.block, -(-source // self.block), device=q_BHLK.device)
        j_NW = self.reads(n_N, source, mask.causal)
        if 2 * max(length, source) <= 3 * j_NW.shape[1]:  # as for windows: blocks pay on longer inputs alone
            return fused_softmax(q_BHLK, k_BGSK, v_BGSK, self.narrowed(q_BHLK, k_BGSK, mask))
        out_BHLK = self._by_blocks(q_BHLK, k_BGSK, v_BGSK, mask, j_NW)
        free = self._free(length, source, mask)
        if not free:
            return out_BHLK
        return torch.cat((self._first(q_BHLK, k_BGSK, v_BGSK, mask, free), out_BHLK[:, :, free:]), 2)

    @torch.inference_mode(False)
    def _blocks(self, q_BHLK: Tensor, k_BGSK: Tensor, mask: Mask) -> Any:
        """The block mask of a pattern and a length, made once: it takes longer than the kernel that reads it. It may be
        judging that needs it first, and what is made in inference mode cannot be trained with."""
        length, source, device = q_BHLK.shape[2], k_BGSK.shape[2], q_BHLK.device
        key = (self.alike(), length, source, mask.causal, mask.window, device)
        if key not in _block_masks:
            if len(_block_masks) >= MOST_BLOCK_MASKS:
                _block_masks.clear()
            _block_masks[key] = flex.blocks_of(self._seen(length, source, mask, device), length, source, device)
        return _block_masks[key]

    def _seen(self, length: int, source: int, mask: Mask, device: torch.device) -> Pattern:
        """The pattern with what the mask says of positions."""
        pattern, first, free = self.pattern(source, device), source - length, self._free(length, source, mask)
        left, right = mask.window or (source, source)
        right = 0 if mask.causal else right
        return lambda i, j: (pattern(i, j) | (i < first + free)) & (j >= i - left) & (j <= i + right)

    def _by_blocks(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, j_NW: Tensor) -> Tensor:
        """Blocks stand in for rows of the batch."""
        (rows, _, length, _), source, blocks = q_BHLK.shape, k_BGSK.shape[2], len(j_NW)
        front = (source - length) % self.block
        q_BHNCK = F.pad(q_BHLK, (0, 0, front, blocks * self.block - front - length)).unflatten(2, (blocks, self.block))
        i_NC1 = torch.arange(source - length - front, -(-source // self.block) * self.block, device=q_BHLK.device)
        i_NC1 = i_NC1.unflatten(0, (blocks, self.block))[..., None]
        keep_BNCW = self._kept(i_NC1, j_NW[:, None], source, mask)
        keep_BNCW = keep_BNCW & self.pattern(source, q_BHLK.device)(i_NC1, j_NW[:, None])
        keep_NCW = keep_BNCW.expand(rows, -1, -1, -1).flatten(0, 1)
        k_NGWK, v_NGWK = _read(k_BGSK, j_NW), _read(v_BGSK, j_NW)
        out_NHCK = fused_softmax(q_BHNCK.transpose(1, 2).flatten(0, 1), k_NGWK, v_NGWK, Mask(dense=keep_NCW[:, None]))
        out_BHLK: Tensor = out_NHCK.unflatten(0, (rows, blocks)).transpose(1, 2).flatten(2, 3)
        return out_BHLK[:, :, front : front + length]

    def _kept(self, i: Tensor, j: Tensor, source: int, mask: Mask) -> Tensor:
        """Whether the mask lets queries at positions i see keys at positions j, with B or 1 in front."""
        keep = (j >= 0) & (j < source)
        if mask.causal:
            keep = keep & (j <= i)
        if mask.window is not None:
            left, right = mask.window
            keep = keep & (j >= i - left) & (j <= i + right)
        return keep[None] if mask.padding is None else keep & mask.padding[:, j.clamp(0, source - 1)]

    def _first(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, free: int) -> Tensor:
        """The few queries that may see every key. A mask would take the last of them for the last of all."""
        source = k_BGSK.shape[2]
        i_L1 = torch.arange(source - q_BHLK.shape[2], source, device=q_BHLK.device)[:free, None]
        keep_BLS = self._kept(i_L1, torch.arange(source, device=q_BHLK.device)[None], source, mask)
        return fused_softmax(q_BHLK[:, :, :free], k_BGSK, v_BGSK, Mask(dense=keep_BLS[:, None]))


def _read(x_BGSK: Tensor, j_NW: Tensor) -> Tensor:
    """Gather keys or values, with blocks as rows: (B N, G, W, K)."""
    index = j_NW.clamp(0, x_BGSK.shape[2] - 1).flatten()
    x_BNWGK: Tensor = x_BGSK.transpose(1, 2).index_select(1, index).unflatten(1, j_NW.shape)
    return x_BNWGK.flatten(0, 1).transpose(1, 2)


class WindowSoftmax(SparseSoftmax):
    """A token sees `window` tokens to each side and the first `first` tokens, which see every token. A block reads
    `width` keys at most."""

    def __init__(self, window: int, first: int = 0) -> None:
        # smaller blocks waste time on calls, larger ones on keys that most of their queries do not see
        super().__init__(min(128, max(64, window)), window + 1, first)
        self.window = window
        self.width = 2 * window + self.block + first

    def pattern(self, source: int, device: torch.device) -> Pattern:
        """Near tokens and the first."""
        window, first = self.window, self.rows
        return lambda i, j: ((j >= i - window) & (j <= i + window)) | (j < first)

    def alike(self) -> object:
        """Windows of one width; a variant with a pattern of its own may depend on more."""
        own = type(self).pattern is WindowSoftmax.pattern
        return ("window", self.window, self.rows) if own else super().alike()

    def reads(self, n_N: Tensor, source: int, causal: bool) -> Tensor:
        """The first tokens, and what lies around a block."""
        end = self.block + (0 if causal else self.window)
        near_NW = n_N[:, None] * self.block + torch.arange(-self.window, end, device=n_N.device)
        first_NW = torch.arange(self.rows, device=n_N.device).expand(len(n_N), self.rows)
        return torch.cat((first_NW, near_NW.masked_fill(near_NW < self.rows, -1)), 1)
