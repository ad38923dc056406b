"""Learned temperature: each head learns how sharply it looks.

Attention of temperature tau is softmax(q k / tau): tau = 1 is softmax itself, tau to 0 picks one token.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import AttentionModifier, AttentionShape, Caps, Cost, Float, Mask


@dataclass(frozen=True, kw_only=True)
class LearnedTemperature(AttentionModifier):
    """Scale each head's queries by a learned 1 / tau, which keeps the fused kernel. `start` is the first log tau."""

    name: ClassVar[str] = "learned_temperature"
    source: ClassVar[str] = "arXiv:2410.01104"
    caps: ClassVar[Caps] = Caps.everywhere(
        weights="exact",
        fit="exact",
        decoding="kv",
        normalized=True,
        position_free=True,
        scaling=1.0,
        dtypes=frozenset({"float64", "float32", "bfloat16", "float16"}),
        onnx=True,
    )
    neutral: ClassVar[Mapping[str, Any] | None] = {"start": 0.0}

    start: Annotated[float, Float(-1.0, 1.0)] = 0.0

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make one temperature a head."""
        return _Temperature(shape.heads, self.start)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """One product for each number in the queries."""
        return Cost(flops=1.0 * length * shape.dim, peak_bytes=4.0 * length * shape.dim)


class _Temperature(nn.Module):
    def __init__(self, heads: int, start: float) -> None:
        super().__init__()
        self.log_tau_H = nn.Parameter(torch.full((heads,), start))

    def on_qk(self, q_BHLK: Tensor, k_BGSK: Tensor, mask: Mask) -> tuple[Tensor, Tensor]:
        return q_BHLK * torch.exp(-self.log_tau_H)[:, None, None], k_BGSK
