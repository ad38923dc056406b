"""Additive attention: a small network of one hidden layer judges each pair of query and key.

Shapes: B batch, H heads, L length, S source length, K dim of one head, A hidden units of one head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from deepmine_auto import AttentionCore, AttentionShape, Caps, Choice, Cost, DenseAttention

HIDDEN_AT_ONCE = 2**20
"""Hidden units that exist at one time (4 MB in float32); the backward pass computes them again."""
HIDDEN_ON_CUDA = 2**26
"""A GPU needs as long to begin a step as for millions of them; 256 MB are little beside what it has."""


@dataclass(frozen=True, kw_only=True)
class Additive(AttentionCore):
    """Score v tanh(W q + U k), `width` hidden units a head, then softmax. Where v is zero all weights are equal. Memory
    stays that of dense attention, because the hidden units of a few queries at a time are kept."""

    name: ClassVar[str] = "additive"
    source: ClassVar[str] = "arXiv:1409.0473"
    scaled: ClassVar[bool] = False
    caps: ClassVar[Caps] = Caps.everywhere(
        weights="exact", matrix=True, decoding="kv", normalized=True, position_free=True
    )

    width: Annotated[int, Choice(16, 32, 64)] = 32

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make one judge a head."""
        return _Judge(shape.heads, shape.head_dim, self.width)

    def work(self) -> float:
        """Return 2: a trial on tweets took so many times as long as with softmax."""
        return 2.0

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Ten operations, which is what a tanh takes, for each hidden unit of each pair. On CUDA more of them exist at
        one time, whatever the length."""
        pairs = float(length**2 * shape.heads)
        return Cost(flops=pairs * (10.0 * self.width + 2.0 * shape.head_dim), peak_bytes=4.0 * (pairs + HIDDEN_AT_ONCE))


class _Judge(DenseAttention):
    def __init__(self, heads: int, head_dim: int, width: int) -> None:
        super().__init__()
        self.w_HKA = nn.Parameter(torch.randn(heads, head_dim, width) * head_dim**-0.5)
        self.u_HKA = nn.Parameter(torch.randn(heads, head_dim, width) * head_dim**-0.5)
        self.v_HA = nn.Parameter(torch.randn(heads, width) * width**-0.5)

    def score(self, q_BHLK: Tensor, k_BHSK: Tensor) -> Tensor:
        scores_BHLS: Tensor = Judgement.apply(q_BHLK @ self.w_HKA, k_BHSK @ self.u_HKA, self.v_HA)
        return scores_BHLS


class Judgement(torch.autograd.Function):
    """v tanh(q + k) for every pair, a few queries at a time, in both directions."""

    @staticmethod
    def forward(ctx: Any, q_BHLA: Tensor, k_BHSA: Tensor, v_HA: Tensor) -> Tensor:
        """Return scores (B, H, L, S)."""
        ctx.save_for_backward(q_BHLA, k_BHSA, v_HA)
        parts = [_hidden(part, k_BHSA) @ v_HA[:, None, :, None] for part in _few(q_BHLA, k_BHSA)]
        return torch.cat(parts, 2).squeeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BHLS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the hidden units again, and go back through them."""
        q_BHLA, k_BHSA, v_HA = ctx.saved_tensors
        grad_q, grad_k, grad_v = [], torch.zeros_like(k_BHSA), torch.zeros_like(v_HA)
        parts = _few(q_BHLA, k_BHSA)
        for part, grad in zip(parts, grad_BHLS.split(parts[0].shape[2], 2), strict=True):
            hidden = _hidden(part, k_BHSA)
            grad_v += (grad.flatten(2)[:, :, None] @ hidden.flatten(2, 3)).sum((0, 2))
            slope = hidden.square_().neg_().add_(1.0).mul_(v_HA[:, None, None]).mul_(grad[..., None])
            grad_q.append(slope.sum(3))
            grad_k += slope.sum(2)
        return torch.cat(grad_q, 2), grad_k, grad_v


def _few(q_BHLA: Tensor, k_BHSA: Tensor) -> tuple[Tensor, ...]:
    at_once = HIDDEN_ON_CUDA if k_BHSA.device.type == "cuda" else HIDDEN_AT_ONCE
    parts: tuple[Tensor, ...] = q_BHLA.split(max(1, at_once // max(1, k_BHSA.numel())), 2)
    return parts


def _hidden(q_BHLA: Tensor, k_BHSA: Tensor) -> Tensor:
    return (q_BHLA[:, :, :, None] + k_BHSA[:, :, None]).tanh_()
