"""cosFormer: relu features in place of the exponential, and a cosine that fades with distance.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import AttentionCore, AttentionShape, BadInput, Caps, Cost, Mask, Mixed, kernel_attention


@dataclass(frozen=True, kw_only=True)
class CosFormer(AttentionCore):
    """Weights relu(q) relu(k) cos(pi / 2 distance / max_len) / sum, in time and memory that grow with L. The cosine
    falls to zero at max_len, and a longer input is refused. A query without positive features in common with any key
    gets zero."""

    name: ClassVar[str] = "cosformer"
    source: ClassVar[str] = "arXiv:2202.08791"
    scaled: ClassVar[bool] = False
    caps: ClassVar[Caps] = Caps(
        modes=frozenset({"bidirectional", "causal"}),
        masks=frozenset({"padding", "causal"}),
        weights="exact",
        decoding="kv",
        scaling=1.0,
    )

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the module; it learns nothing."""
        return _CosFormer(shape.max_len)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Two products with the (2 K, K) sum of each head."""
        return Cost(flops=8.0 * length * shape.dim * shape.head_dim, peak_bytes=24.0 * length * shape.dim)


class _CosFormer(nn.Module):
    def __init__(self, max_len: int) -> None:
        super().__init__()
        self.max_len = max_len

    def forward(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, *, weights: bool = False) -> Mixed:
        length, source = q_BHLK.shape[2], k_BGSK.shape[2]
        if max(length, source) > self.max_len:
            raise BadInput(
                f"'cosformer' takes at most {self.max_len} tokens, not {max(length, source)}.", "Cut the input."
            )
        phi_q, phi_k = self._features(q_BHLK, source - length), self._features(k_BGSK, 0)
        return kernel_attention(phi_q, phi_k, v_BGSK, mask, weights=weights)

    def _features(self, x_BHLK: Tensor, first: int) -> Tensor:
        """By Ptolemy, cos(a - b) = cos a cos b + sin a sin b: the distance falls apart into a part of each token."""
        exact = torch.promote_types(x_BHLK.dtype, torch.float32)  # far positions need more digits than half floats have
        at_L1 = torch.arange(first, first + x_BHLK.shape[2], device=x_BHLK.device, dtype=exact)[:, None]
        angle_L1, x_BHLK = at_L1 * (math.pi / 2.0 / self.max_len), x_BHLK.relu()
        return torch.cat([x_BHLK * each.to(x_BHLK.dtype) for each in (angle_L1.cos(), angle_L1.sin())], -1)
