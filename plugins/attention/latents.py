"""Attention through latents: a few learned queries read all tokens, and every token reads what they found.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head, R latents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import (
    AttentionCore,
    AttentionShape,
    Caps,
    Cost,
    DenseAttention,
    Int,
    Mask,
    Mixed,
    fused_softmax,
    repeated,
)


@dataclass(frozen=True, kw_only=True)
class Latents(AttentionCore):
    """softmax(q k~) v~, where `latents` learned queries of each head mix keys into k~ and values into v~, by the same
    weights. Time and memory grow with L times `latents`. A latent reads all tokens, so there is no causal mode."""

    name: ClassVar[str] = "latents"
    source: ClassVar[str] = "arXiv:1810.00825"
    caps: ClassVar[Caps] = Caps(
        modes=frozenset({"bidirectional", "cross"}),
        masks=frozenset({"padding"}),
        weights="exact",
        normalized=True,
        position_free=True,
        saves=True,
        scaling=1.0,
        onnx=True,
    )

    latents: Annotated[int, Int(8, 256, log=True)] = 32

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the latent queries."""
        return _Latents(shape.heads, self.latents, shape.head_dim)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Three attentions between tokens and latents: keys and values are read apart, by the fused kernel."""
        pairs = float(length * self.latents)
        return Cost(flops=12.0 * pairs * shape.dim, peak_bytes=4.0 * pairs * shape.heads)


class _Latents(nn.Module):
    def __init__(self, heads: int, latents: int, head_dim: int) -> None:
        super().__init__()
        self.latents_HRK = nn.Parameter(torch.randn(heads, latents, head_dim))
        self.dense = DenseAttention()

    def forward(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, *, weights: bool = False) -> Mixed:
        latents_BHRK = self.latents_HRK.expand(k_BGSK.shape[0], -1, -1, -1)
        if weights:
            read = self.dense(latents_BHRK, k_BGSK, k_BGSK, mask, weights=True)
            weights_BHLS = self.dense.weigh(q_BHLK, read.out, Mask()) @ read.weights
            v_BHSK = repeated(v_BGSK, q_BHLK.shape[1])
            return Mixed(weights_BHLS @ v_BHSK, weights_BHLS)
        k_BHRK, v_BHRK = (fused_softmax(latents_BHRK, k_BGSK, x, mask) for x in (k_BGSK, v_BGSK))
        return Mixed(fused_softmax(q_BHLK, k_BHRK, v_BHRK, Mask()))
