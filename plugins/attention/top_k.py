"""Top-k attention: softmax over the few keys that a query scores highest, and nothing for the rest.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import AttentionCore, AttentionShape, Caps, Cost, DenseAttention, FusedSoftmax, Int, Mask, Mixed


@dataclass(frozen=True, kw_only=True)
class TopK(AttentionCore):
    """Softmax over the `most` largest scores of each query. Keys that tie with the last of them stay in, so that order
    plays no part. Equals multi-head attention, and costs the same, on inputs of up to `most` keys."""

    name: ClassVar[str] = "top_k"
    source: ClassVar[str] = "arXiv:1912.11637"
    caps: ClassVar[Caps] = Caps.everywhere(
        weights="exact", matrix=True, fit="finetune", decoding="kv", normalized=True, position_free=True
    )

    most: Annotated[int, Int(4, 64, log=True)] = 8

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the module; it learns nothing."""
        return _TopK(self.most)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Dense attention, and the choice among the scores of each query (some ten operations a score)."""
        if length <= self.most:
            return super().cost(shape, length)
        pairs = float(length**2 * shape.heads)
        return Cost(flops=pairs * (4.0 * shape.head_dim + 10.0), peak_bytes=12.0 * pairs)


class _TopK(FusedSoftmax):
    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def normalize(self, scores_BHLS: Tensor) -> Tensor:
        if scores_BHLS.shape[-1] <= self.most:
            return super().normalize(scores_BHLS)
        with torch.no_grad():
            least_BHL1 = scores_BHLS.topk(self.most, -1, sorted=False).values.amin(-1, keepdim=True)
        return super().normalize(scores_BHLS.masked_fill(scores_BHLS < least_BHL1, -torch.inf))

    def forward(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, *, weights: bool = False) -> Mixed:
        if k_BGSK.shape[2] <= self.most:
            return super().forward(q_BHLK, k_BGSK, v_BGSK, mask, weights=weights)
        return DenseAttention.forward(self, q_BHLK, k_BGSK, v_BGSK, mask, weights=weights)
