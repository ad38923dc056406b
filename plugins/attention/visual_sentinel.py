"""Adaptive attention with a sentinel: what the query knows by itself competes with the keys, so that a token may look
inward.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import AttentionCore, AttentionShape, Caps, Cost, Mask, Mixed

from .sink import softmax_with_sink


@dataclass(frozen=True, kw_only=True)
class VisualSentinel(AttentionCore):
    """Softmax over the keys and a sentinel s = sigmoid(A q) tanh(C q), whose score is q (D s) / sqrt(K): the output is
    beta s and the keys' share of the rest. Scores are products, where the paper has a network. Weights are not shown,
    because those of the keys do not make up the whole output. A query that may see no key gets zero, as everywhere."""

    name: ClassVar[str] = "visual_sentinel"
    source: ClassVar[str] = "arXiv:1612.01887"
    caps: ClassVar[Caps] = Caps.everywhere(decoding="kv", position_free=True, onnx=True)

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make three matrices a head."""
        return _Sentinel(shape.heads, shape.head_dim)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Dense softmax attention with one more key and one more dim a head, and three products of each query."""
        pairs = float(length * (length + 1) * shape.heads)
        own = 6.0 * length * shape.dim * shape.head_dim
        return Cost(flops=4.0 * pairs * (shape.head_dim + 1) + own, peak_bytes=4.0 * pairs)


class _Sentinel(nn.Module):
    def __init__(self, heads: int, head_dim: int) -> None:
        super().__init__()
        self.gate_HKK = nn.Parameter(torch.randn(heads, head_dim, head_dim) * head_dim**-0.5)
        self.content_HKK = nn.Parameter(torch.randn(heads, head_dim, head_dim) * head_dim**-0.5)
        self.key_HKK = nn.Parameter(torch.randn(heads, head_dim, head_dim) * head_dim**-0.5)

    def sentinel(self, q_BHLK: Tensor) -> Tensor:
        """What each query has to say by itself, (B, H, L, K)."""
        return torch.sigmoid(q_BHLK @ self.gate_HKK) * torch.tanh(q_BHLK @ self.content_HKK)

    def forward(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, *, weights: bool = False) -> Mixed:
        sentinel_BHLK = self.sentinel(q_BHLK)
        logit_BHL1 = (q_BHLK * (sentinel_BHLK @ self.key_HKK)).sum(-1, keepdim=True) * q_BHLK.shape[-1] ** -0.5
        out_BHLK, beta_BHL1 = softmax_with_sink(q_BHLK, k_BGSK, v_BGSK, mask, logit_BHL1)
        return Mixed(out_BHLK + beta_BHL1 * sentinel_BHLK)
