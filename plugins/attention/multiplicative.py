"""Multiplicative attention: the score of a query and a key is their product, plain or through a learned matrix.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import AttentionCore, AttentionShape, Caps, Choice, Cost, FusedSoftmax, Mask, Mixed


@dataclass(frozen=True, kw_only=True)
class Multiplicative(AttentionCore):
    """Softmax of q k (`dot`) or q W k (`general`), with no division by sqrt(K), so larger heads look more sharply. W
    begins as the identity: `general` starts where `dot` stays. Both keep the fused kernel."""

    name: ClassVar[str] = "multiplicative"
    source: ClassVar[str] = "arXiv:1508.04025"
    scaled: ClassVar[bool] = False
    caps: ClassVar[Caps] = Caps.everywhere(
        weights="exact", matrix=True, decoding="kv", normalized=True, position_free=True, onnx=True
    )

    score: Annotated[str, Choice("dot", "general")] = "general"

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the module: for `general` with one matrix a head, for `dot` with nothing to learn."""
        if self.score == "dot":
            return _Product()
        return _General(shape.heads, shape.head_dim)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Dense softmax attention, and one product of each query with a matrix."""
        matrix = 2.0 * length * shape.dim * shape.head_dim if self.score == "general" else 0.0
        return Cost(flops=4.0 * length**2 * shape.dim + matrix, peak_bytes=4.0 * length**2 * shape.heads)


class _Product(FusedSoftmax):
    def turned(self, q_BHLK: Tensor) -> Tensor:
        """The query whose scaled product with a key is the score."""
        return q_BHLK * math.sqrt(q_BHLK.shape[-1])

    def score(self, q_BHLK: Tensor, k_BHSK: Tensor) -> Tensor:
        return super().score(self.turned(q_BHLK), k_BHSK)

    def forward(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, *, weights: bool = False) -> Mixed:
        q_BHLK = q_BHLK if weights else self.turned(q_BHLK)  # where weights are asked for, `score` turns it
        return super().forward(q_BHLK, k_BGSK, v_BGSK, mask, weights=weights)


class _General(_Product):
    def __init__(self, heads: int, head_dim: int) -> None:
        super().__init__()
        self.w_HKK = nn.Parameter(torch.eye(head_dim).repeat(heads, 1, 1))

    def turned(self, q_BHLK: Tensor) -> Tensor:
        return super().turned(q_BHLK @ self.w_HKK)
