"""Performer: random features whose products are, on average, the exponentials of softmax attention.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head, M features, N blocks of K
features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import AttentionCore, AttentionShape, Caps, Choice, Cost, Int, Mask, Mixed, kernel_attention


@dataclass(frozen=True, kw_only=True)
class Performer(AttentionCore):
    """An estimate of softmax by positive orthogonal features (FAVOR+), whose error falls with the root of `features`.
    They are drawn with the model, and drawn anew `redraws` - 1 times, evenly over the training, so that no query learns
    to suit one draw."""

    name: ClassVar[str] = "performer"
    source: ClassVar[str] = "arXiv:2009.14794"
    caps: ClassVar[Caps] = Caps(
        modes=frozenset({"bidirectional", "causal", "cross"}),
        masks=frozenset({"padding", "causal"}),
        weights="exact",
        fit="finetune",
        decoding="kv",
        normalized=True,
        position_free=True,
        saves=True,
        scaling=1.0,
    )

    features: Annotated[int, Int(64, 512, log=True)] = 256
    redraws: Annotated[int, Choice(1, 10, 100)] = 10

    def build(self, shape: AttentionShape) -> nn.Module:
        """Draw the features; nothing is learned."""
        return _Performer(self.features, shape.head_dim, self.redraws)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Features of queries and keys, and two products with their (M, K) sum."""
        pairs = float(length * self.features)
        return Cost(flops=8.0 * pairs * shape.dim, peak_bytes=12.0 * pairs * shape.heads)


class _Performer(nn.Module):
    def __init__(self, features: int, head_dim: int, redraws: int) -> None:
        super().__init__()
        self.redraws = redraws
        self.features_MK: Tensor
        self.draws: Tensor
        self.register_buffer("features_MK", orthogonal_features(features, head_dim))
        self.register_buffer("draws", torch.ones((), dtype=torch.long))

    def step(self, done: float) -> None:
        due = min(int(done * self.redraws) + 1, self.redraws)  # the last draw is trained with before it is used
        if due > int(self.draws):
            self.draws.fill_(due)
            self.features_MK.copy_(orthogonal_features(*self.features_MK.shape))

    def forward(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, *, weights: bool = False) -> Mixed:
        q_BHLK, k_BGSK = (x * x.shape[-1] ** -0.25 for x in (q_BHLK, k_BGSK))
        # what is subtracted, from one query or from all keys alike, cancels in the quotient and saves it from overflow
        q_BHLM = q_BHLK @ self.features_MK.T
        phi_q_BHLM = torch.exp(q_BHLM - q_BHLM.detach().amax(-1, keepdim=True))
        k_BGSM = k_BGSK @ self.features_MK.T - k_BGSK.square().sum(-1, keepdim=True) / 2.0
        phi_k_BGSM = torch.exp(k_BGSM - k_BGSM.detach().amax((-2, -1), keepdim=True))
        return kernel_attention(phi_q_BHLM, phi_k_BGSM, v_BGSK, mask, weights=weights)


def orthogonal_features(features: int, head_dim: int) -> Tensor:
    """Rows (M, K), each normal in K dims, and orthogonal within every K of them."""
    blocks = -(-features // head_dim)
    q_NKK, r_NKK = torch.linalg.qr(torch.randn(blocks, head_dim, head_dim))
    # QR fixes the signs by its algorithm; those of r make every rotation as likely as any other
    turned_NKK = q_NKK * r_NKK.diagonal(dim1=-2, dim2=-1).sign()[:, None]
    norms_M1 = torch.randn(features, head_dim).norm(dim=-1, keepdim=True)
    features_MK: Tensor = turned_NKK.flatten(0, 1)[:features] * norms_M1
    return features_MK
