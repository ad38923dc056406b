"""Softmax attention by torch's fused kernel: the road of every variant that needs no score of its own.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from deepmine_auto.contracts import Mixed
from deepmine_auto.model.dense import DenseAttention
from deepmine_auto.model.mask import Mask

DIMS = 8
"""CUDA's kernels that keep no scores take heads of a multiple of so many dims, in all kinds of floats."""


def fused_softmax(q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask) -> Tensor:
    """Return softmax(q k / sqrt(K)) v, (B, H, L, K), without keeping the weights; rows that see nothing are zero."""
    if v_BGSK.device.type == "cuda" and (q_BHLK.shape[-1] % DIMS or v_BGSK.shape[-1] % DIMS):
        return widened_softmax(q_BHLK, k_BGSK, v_BGSK, mask)
    return _softmax(q_BHLK, k_BGSK, v_BGSK, mask)


def widened_softmax(q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask) -> Tensor:
    """The same by heads with zeros up to a multiple of DIMS: they change no score, and what they give is cut off."""
    scale = q_BHLK.shape[-1] ** -0.5
    q_BHLK, k_BGSK, wide_BGSK = (F.pad(each, (0, -each.shape[-1] % DIMS)) for each in (q_BHLK, k_BGSK, v_BGSK))
    return _softmax(q_BHLK, k_BGSK, wide_BGSK, mask, scale)[..., : v_BGSK.shape[-1]]


def _softmax(q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, scale: float | None = None) -> Tensor:
    length, source = q_BHLK.shape[2], k_BGSK.shape[2]
    grouped = q_BHLK.shape[1] != k_BGSK.shape[1]
    if (
        mask.features == {"causal"} and length == source
    ):  # torch aligns its own causal mask upper left, ours is lower right
        return F.scaled_dot_product_attention(q_BHLK, k_BGSK, v_BGSK, is_causal=True, scale=scale, enable_gqa=grouped)
    keep = mask.allowed(length, source, q_BHLK.device)
    if mask.bias is not None and keep is not None:
        keep = mask.bias.to(q_BHLK.dtype).masked_fill(~keep, -torch.inf)
    return F.scaled_dot_product_attention(q_BHLK, k_BGSK, v_BGSK, attn_mask=keep, scale=scale, enable_gqa=grouped)


class FusedSoftmax(DenseAttention):
    """Softmax attention (arXiv:1706.03762): by the fused kernel, and by definition when asked for weights."""

    def forward(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, *, weights: bool = False) -> Mixed:
        """Mix values; weights (B, H, L, S) come with them when asked for."""
        if weights:
            return super().forward(q_BHLK, k_BGSK, v_BGSK, mask, weights=True)
        return Mixed(fused_softmax(q_BHLK, k_BGSK, v_BGSK, mask))
