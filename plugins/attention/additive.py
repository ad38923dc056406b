"""Additive attention: a small network of one hidden layer judges each pair of query and key.

Shapes: B batch, H heads, L length, S source length, K dim of one head, A hidden units of one head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from deepmine_auto import AttentionCore, AttentionShape, Caps, Choice, Cost, DenseAttention

HIDDEN_AT_ONCE = 2**22
"""Hidden units that exist at one time (16 MB in float32); the backward pass computes them again."""


@dataclass(frozen=True, kw_only=True)
class Additive(AttentionCore):
    """Score v tanh(W q + U k), `width` hidden units a head, then softmax. Where v is zero all weights are equal. Memory
    stays that of dense attention, because the hidden units of a few queries at a time are kept."""

    name: ClassVar[str] = "additive"
    source: ClassVar[str] = "arXiv:1409.0473"
    caps: ClassVar[Caps] = Caps.everywhere(weights="exact", decoding="kv", normalized=True, position_free=True)

    width: Annotated[int, Choice(16, 32, 64)] = 32

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make one judge a head."""
        return _Judge(shape.heads, shape.head_dim, self.width)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Ten operations, which is what a tanh takes, for each hidden unit of each pair."""
        pairs = float(length**2 * shape.heads)
        return Cost(flops=pairs * (10.0 * self.width + 2.0 * shape.head_dim), peak_bytes=4.0 * (pairs + HIDDEN_AT_ONCE))


class _Judge(DenseAttention):
    def __init__(self, heads: int, head_dim: int, width: int) -> None:
        super().__init__()
        self.w_HKA = nn.Parameter(torch.randn(heads, head_dim, width) * head_dim**-0.5)
        self.u_HKA = nn.Parameter(torch.randn(heads, head_dim, width) * head_dim**-0.5)
        self.v_HA = nn.Parameter(torch.randn(heads, width) * width**-0.5)

    def score(self, q_BHLK: Tensor, k_BHSK: Tensor) -> Tensor:
        q_BHLA, k_BHSA = q_BHLK @ self.w_HKA, k_BHSK @ self.u_HKA
        queries = max(1, HIDDEN_AT_ONCE // max(1, k_BHSA.numel()))
        parts = [self._remembering_nothing(part, k_BHSA) for part in q_BHLA.split(queries, 2)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 2)

    def _remembering_nothing(self, q_BHLA: Tensor, k_BHSA: Tensor) -> Tensor:
        scores_BHLS: Tensor = checkpoint(_judged, q_BHLA, k_BHSA, self.v_HA, use_reentrant=False)
        return scores_BHLS


def _judged(q_BHLA: Tensor, k_BHSA: Tensor, v_HA: Tensor) -> Tensor:
    hidden_BHLSA = torch.tanh(q_BHLA[:, :, :, None] + k_BHSA[:, :, None])
    return (hidden_BHLSA @ v_HA[:, None, :, None]).squeeze(-1)
