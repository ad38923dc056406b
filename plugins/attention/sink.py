"""Attention with a sink: one more logit a head takes weight and gives nothing, so that a head may look at nothing.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmine_auto import AttentionCore, AttentionShape, Caps, Cost, DenseAttention, Float, Mask, Mixed

from .registers import softmax_beside


@dataclass(frozen=True, kw_only=True)
class Sink(AttentionCore):
    """Softmax over the scores and a learned logit a head, which begins at `start`: rows of weights sum to less than
    one. At 0 it is the zero sink of the paper; far below all scores it is softmax itself, and learns no more."""

    name: ClassVar[str] = "sink"
    source: ClassVar[str] = "arXiv:2309.17453"
    caps: ClassVar[Caps] = Caps.everywhere(
        weights="exact", matrix=True, fit="exact", decoding="kv", position_free=True, onnx=True
    )
    neutral: ClassVar[Mapping[str, Any] | None] = {"start": -1e4}

    start: Annotated[float, Float(-4.0, 2.0)] = 0.0

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make one logit a head."""
        return _Sink(shape.heads, self.start)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Dense softmax attention with one more key, and one more dim a head."""
        pairs = float(length * (length + 1) * shape.heads)
        return Cost(flops=4.0 * pairs * (shape.head_dim + 1), peak_bytes=4.0 * pairs)


class _Sink(DenseAttention):
    def __init__(self, heads: int, start: float) -> None:
        super().__init__()
        self.logit_H = nn.Parameter(torch.full((heads,), start))

    def normalize(self, scores_BHLS: Tensor) -> Tensor:
        given = torch.sigmoid(scores_BHLS.logsumexp(-1, keepdim=True) - self.logit_H[:, None, None])
        return super().normalize(scores_BHLS) * given

    def forward(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, *, weights: bool = False) -> Mixed:
        if weights:
            return super().forward(q_BHLK, k_BGSK, v_BGSK, mask, weights=True)
        out_BHLK, _ = softmax_with_sink(q_BHLK, k_BGSK, v_BGSK, mask, self.logit_H[:, None, None])
        return Mixed(out_BHLK)


def softmax_with_sink(
    q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, logit_BHL1: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what the keys give beside one more logit (finite, broadcastable to (B, H, L, 1)), and that one's weight.

    One more dim of the queries holds the logit, and the key that reads it has nothing else; one more dim of the values
    tells how much that key got. So the fused kernel computes and learns both, where a bias would cost L x S.
    """
    dims = q_BHLK.shape[-1]
    scale = math.sqrt(dims + 1)  # the kernel divides by the root of all dims
    logit_BHL1 = logit_BHL1.expand(*q_BHLK.shape[:-1], 1)
    q_BHLK = torch.cat((q_BHLK * (scale / math.sqrt(dims)), logit_BHL1 * scale), -1)
    reader_11K = F.pad(q_BHLK.new_ones(1, 1, 1), (dims, 0))
    out_BHLK = softmax_beside(q_BHLK, F.pad(k_BGSK, (0, 1)), F.pad(v_BGSK, (0, 1)), mask, reader_11K, reader_11K)
    return out_BHLK[..., :dims], out_BHLK[..., dims:]
