"""Linear attention: a kernel of positive features in place of the exponential, so that keys and values are summed once
for all queries.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from deepmine_auto import AttentionCore, AttentionShape, Caps, Cost, Mask, Mixed, kernel_attention


@dataclass(frozen=True, kw_only=True)
class Linear(AttentionCore):
    """Weights phi(q) phi(k) / sum, with phi = elu + 1. Time and memory grow with L; causal attention is computed by
    chunks, exactly. Outputs are convex mixtures of the values."""

    name: ClassVar[str] = "linear"
    source: ClassVar[str] = "arXiv:2006.16236"
    scaled: ClassVar[bool] = False
    caps: ClassVar[Caps] = Caps(
        modes=frozenset({"bidirectional", "causal", "cross"}),
        masks=frozenset({"padding", "causal"}),
        weights="exact",
        decoding="kv",
        normalized=True,
        position_free=True,
        scaling=1.0,
    )

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the module; it learns nothing."""
        return _Linear()

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Two products with the (K, K) sum of each head."""
        return Cost(flops=4.0 * length * shape.dim * shape.head_dim, peak_bytes=12.0 * length * shape.dim)


class _Linear(nn.Module):
    def forward(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, *, weights: bool = False) -> Mixed:
        return kernel_attention(F.elu(q_BHLK) + 1.0, F.elu(k_BGSK) + 1.0, v_BGSK, mask, weights=weights)
