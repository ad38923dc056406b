"""Sigmoid attention: each key is weighed by itself, and keys do not compete.

Shapes: B batch, H heads, L length, S source length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import AttentionCore, AttentionShape, Caps, Cost, DenseAttention, Float


@dataclass(frozen=True, kw_only=True)
class Sigmoid(AttentionCore):
    """Weights sigmoid(score - log n + offset), where n is the number of keys that the query may see: rows sum to about
    one where scores are near zero, and to anything from 0 to n later. `start` is where each head's offset begins."""

    name: ClassVar[str] = "sigmoid"
    source: ClassVar[str] = "arXiv:2409.04431"
    caps: ClassVar[Caps] = Caps.everywhere(
        weights="exact", matrix=True, fit="finetune", decoding="kv", position_free=True, onnx=True
    )

    start: Annotated[float, Float(-1.0, 1.0)] = 0.0

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make one offset a head."""
        return _Sigmoid(shape.heads, self.start)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Dense attention without a fused kernel."""
        pairs = float(length**2 * shape.heads)
        return Cost(flops=pairs * (4.0 * shape.head_dim + 5.0), peak_bytes=8.0 * pairs)


class _Sigmoid(DenseAttention):
    def __init__(self, heads: int, start: float) -> None:
        super().__init__()
        self.offset_H = nn.Parameter(torch.full((heads,), start))

    def normalize(self, scores_BHLS: Tensor) -> Tensor:
        seen = torch.full_like(scores_BHLS[..., :1], scores_BHLS.shape[-1])
        return torch.sigmoid(scores_BHLS + (self.offset_H[:, None, None] - seen.log()))

    def normalize_some(self, scores_BHLS: Tensor, keep: Tensor) -> Tensor:
        seen = keep.sum(-1, keepdim=True).clamp_min(1).to(scores_BHLS.dtype)
        weights_BHLS = torch.sigmoid(scores_BHLS + (self.offset_H[:, None, None] - seen.log()))
        return weights_BHLS.masked_fill(~keep, 0.0)
