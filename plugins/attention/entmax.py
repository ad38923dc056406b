"""Entmax attention: weights between softmax (alpha = 1) and sparsemax (alpha = 2), with exact zeros; each head learns
its alpha.

Shapes: B batch, H heads, L length, S source length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from deepmine_auto import AttentionCore, AttentionShape, Caps, Cost, DenseAttention, Float

LOWEST_ALPHA = 1.01
"""Nearer to softmax, the gradient of alpha is the difference of numbers too alike for float32."""
STEPS = 8
"""Newton steps; the threshold is then as exact as the dtype (tested against bisection)."""

SCORES_AT_ONCE = 2**17
"""So many stay in a processor's cache from step to step."""
SCORES_ON_CUDA = 2**26
"""A GPU needs as long to begin a step as for millions of scores. The backward pass holds more numbers yet."""


@dataclass(frozen=True, kw_only=True)
class Entmax(AttentionCore):
    """alpha-entmax of scaled dot products, `alpha` where each head's begins. Weights that are small become zero."""

    name: ClassVar[str] = "entmax"
    source: ClassVar[str] = "arXiv:1909.00015"
    caps: ClassVar[Caps] = Caps.everywhere(
        weights="exact", matrix=True, fit="finetune", decoding="kv", normalized=True, position_free=True
    )

    alpha: Annotated[float, Float(1.05, 1.95)] = 1.5

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make one alpha a head."""
        return _Entmax(shape.heads, self.alpha)

    def work(self) -> float:
        """Return 1.5: a trial on tweets took so many times as long as with softmax."""
        return 1.5

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Dense attention, and a power for each weight and Newton step (some twenty operations)."""
        pairs = float(length**2 * shape.heads)
        return Cost(flops=pairs * (4.0 * shape.head_dim + 20.0 * STEPS), peak_bytes=16.0 * pairs)


class _Entmax(DenseAttention):
    def __init__(self, heads: int, alpha: float) -> None:
        super().__init__()
        share = (alpha - LOWEST_ALPHA) / (2.0 - LOWEST_ALPHA)
        self.logit_H = nn.Parameter(torch.full((heads,), math.log(share / (1.0 - share))))

    @property
    def alphas(self) -> Tensor:
        """The learned alpha of each head, between LOWEST_ALPHA and 2."""
        return LOWEST_ALPHA + (2.0 - LOWEST_ALPHA) * torch.sigmoid(self.logit_H)

    def normalize(self, scores_BHLS: Tensor) -> Tensor:
        weights_BHLS: Tensor = EntmaxFunction.apply(scores_BHLS, self.alphas[:, None, None])
        return weights_BHLS


class EntmaxFunction(torch.autograd.Function):
    """alpha-entmax over the last dim; alpha broadcasts against the scores, with 1 < alpha < 2 and a last dim of one.

    p_i = (x_i - tau)+ ^ m with x = (alpha - 1) scores, m = 1 / (alpha - 1), and tau such that they sum to one. Each row
    needs one score above -inf.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, alpha: Tensor) -> Tensor:
        """Return weights like scores."""
        p = torch.cat([_solved(part, alpha) for part in _few(scores)], -2)
        ctx.save_for_backward(p, alpha)
        return p

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        """The implicit gradients of arXiv:1909.00015, proposition 1 and its jacobian in alpha."""
        p, alpha = ctx.saved_tensors
        s = torch.where(p > 0.0, p ** (2.0 - alpha), 0.0)
        s_normal = s / s.sum(-1, keepdim=True)
        grad_scores = s * (grad - (s_normal * grad).sum(-1, keepdim=True))
        if not ctx.needs_input_grad[1]:
            return grad_scores, None
        h = -torch.xlogy(p, p)
        by_alpha = (p - s_normal) / (alpha - 1.0) ** 2 + (h - s_normal * h.sum(-1, keepdim=True)) / (alpha - 1.0)
        return grad_scores, (grad * by_alpha).sum_to_size(alpha.shape)


def _few(scores: Tensor) -> tuple[Tensor, ...]:
    at_once = SCORES_ON_CUDA if scores.device.type == "cuda" else SCORES_AT_ONCE
    parts: tuple[Tensor, ...] = scores.split(max(1, at_once * scores.shape[-2] // max(1, scores.numel())), -2)
    return parts


def _solved(scores: Tensor, alpha: Tensor) -> Tensor:
    m = 1.0 / (alpha - 1.0)
    x = scores * (alpha - 1.0)
    x = x - x.amax(-1, keepdim=True)
    tau = torch.full_like(x[..., :1], -1.0)
    for _ in range(STEPS):
        tau = tau + _newton_step(x - tau, m)
    p = (x - tau).clamp_min_(0.0) ** m
    return p / p.sum(-1, keepdim=True)


def _newton_step(u: Tensor, m: Tensor) -> Tensor:
    """Towards the tau at which the m-norm of u = (x - tau)+ is one. The norm is convex in tau and, from below, Newton
    never passes the root; where the entries are equal, one step is exact."""
    u = u.clamp_min_(0.0)
    below = u ** (m - 1.0)
    total = (below * u).sum(-1, keepdim=True)
    slope = below.sum(-1, keepdim=True)
    return (total - total ** (1.0 - 1.0 / m)) / slope
