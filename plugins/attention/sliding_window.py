"""Sliding-window attention: a token looks at its neighbours, and blocks of keys outside are never computed.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head, N blocks of queries,
C queries of one block, W keys that one block sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmine_auto import AttentionCore, AttentionShape, Caps, Cost, Int, Mask, WindowSoftmax, fused_softmax


@dataclass(frozen=True, kw_only=True)
class SlidingWindow(AttentionCore):
    """Softmax over at most `window` tokens to each side, and over those before alone where attention is causal. Time
    and memory grow with L times window. Equals multi-head attention on inputs of up to `window` + 1 tokens."""

    name: ClassVar[str] = "sliding_window"
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

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the module; it learns nothing."""
        return _Window(self.window)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Dense softmax over the keys that a query's block sees."""
        seen = min(length, WindowSoftmax(self.window).width)
        return Cost(flops=4.0 * length * seen * shape.dim, peak_bytes=8.0 * length * (seen + shape.dim))


class _Window(WindowSoftmax):
    def _by_blocks(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, j_NW: Tensor) -> Tensor:
        """What blocks read overlaps and lies in a row, so that it is sliced in place of gathered, which is faster."""
        left, right = (min(each, self.window) for each in mask.window or (self.window, self.window))
        return _by_slices(q_BHLK, k_BGSK, v_BGSK, mask, (left, 0 if mask.causal else right), self.block)


def _by_slices(
    q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, window: tuple[int, int], block: int
) -> Tensor:
    """Each block of queries attends to the one slice of keys that its window reaches; blocks stand in for rows."""
    left, right = window
    (rows, _, length, _), source = q_BHLK.shape, k_BGSK.shape[2]
    blocks = -(-length // block)
    reach = left + block + right
    # in keys, the first block's slice begins `left` before the first query; a negative pad cuts keys that none sees
    front = left - (source - length)
    back = blocks * block + left + right - front - source

    def slices(x_BGSK: Tensor) -> Tensor:
        return F.pad(x_BGSK, (0, 0, front, back)).unfold(2, reach, block).permute(0, 2, 1, 4, 3).flatten(0, 1)

    q_NHCK = (
        F.pad(q_BHLK, (0, 0, 0, blocks * block - length)).unflatten(2, (blocks, block)).transpose(1, 2).flatten(0, 1)
    )
    real_BS = q_BHLK.new_ones((1, source), dtype=torch.bool) if mask.padding is None else mask.padding
    real_BNW = F.pad(real_BS, (front, back)).unfold(1, reach, block).expand(rows, -1, -1)
    ahead_CW = (
        torch.arange(-left, block + right, device=q_BHLK.device) - torch.arange(block, device=q_BHLK.device)[:, None]
    )
    keep_NCW = (ahead_CW >= -left) & (ahead_CW <= right) & real_BNW.flatten(0, 1)[:, None]
    out_NHCK = fused_softmax(q_NHCK, slices(k_BGSK), slices(v_BGSK), Mask(dense=keep_NCW[:, None]))
    out_BHLK: Tensor = out_NHCK.unflatten(0, (rows, blocks)).transpose(1, 2).flatten(2, 3)
    return out_BHLK[:, :, :length]
