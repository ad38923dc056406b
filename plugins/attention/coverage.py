"""Coverage: keys know how much of them earlier steps saw, and a loss asks each step for something new.

Shapes: B batch, H heads, L length (steps), S source length, K dim of one head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmine_auto import AttentionModifier, AttentionShape, Caps, Cost, Float


@dataclass(frozen=True, kw_only=True)
class Coverage(AttentionModifier):
    """Add w c / n to each key, where c is the sum of its weights at all earlier steps, and n = 2 sigmoid(u k) is how
    often it should be seen (fertility, arXiv:1601.04811). `price` times the sum of min(weight, c) joins the loss, mean
    over steps and heads; the paper adds it, at 1, only to a model that has learned without. w and u begin at zero: all
    that works then is the loss. Works only where a model goes step by step."""

    name: ClassVar[str] = "coverage"
    source: ClassVar[str] = "arXiv:1704.04368"
    needs = "past"
    caps: ClassVar[Caps] = Caps(
        modes=frozenset({"cross"}), masks=frozenset({"padding"}), weights="exact", normalized=True
    )

    price: Annotated[float, Float(0.01, 1.0, log=True)] = 0.1

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make two vectors a head."""
        return _Coverage(shape, self.price)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """For each step fertilities, and keys of its own, which are kept for the backward pass."""
        numbers = float(length**2 * shape.dim)
        return Cost(flops=4.0 * numbers, peak_bytes=4.0 * numbers)


class _Coverage(nn.Module):
    def __init__(self, shape: AttentionShape, price: float) -> None:
        super().__init__()
        self.price = price
        self.w_HK = nn.Parameter(torch.zeros(shape.heads, shape.head_dim))
        self.u_HK = nn.Parameter(torch.zeros(shape.heads, shape.head_dim))

    def on_past(self, k_BHSK: Tensor, last_BHS: Tensor, sum_BHS: Tensor) -> Tensor:
        often_BHS = 2.0 * torch.sigmoid((k_BHSK @ self.u_HK[..., None]).squeeze(-1))
        return k_BHSK + (sum_BHS / often_BHS)[..., None] * self.w_HK[:, None]

    def alignment_losses(self, weights_BHLS: Tensor, keep_BL: Tensor) -> dict[str, Tensor]:
        before_BHLS = F.pad(weights_BHLS.cumsum(2)[:, :, :-1], (0, 0, 1, 0))
        again_BL = torch.minimum(weights_BHLS, before_BHLS).sum(-1).mean(1)
        again_B = (again_BL * keep_BL).sum(1) / keep_BL.sum(1)
        return {"coverage": self.price * again_B.mean()}
