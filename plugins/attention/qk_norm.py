"""Query-key normalisation: scores are cosines times a learned scale, so that no query or key can shout.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmine_auto import AttentionModifier, AttentionShape, Caps, Cost, Float, Mask

SHORTEST = 1e-6
"""Vectors below it are not stretched to length one; half floats can hold it."""


@dataclass(frozen=True, kw_only=True)
class QKNorm(AttentionModifier):
    """Scale queries and keys to length one, and their product by a number that each head learns from `scale` on, in
    place of 1 / sqrt(K). Scores stay within the scale, whatever the size of the input: a core that does not divide
    so is refused. Keeps the fused kernel."""

    name: ClassVar[str] = "qk_norm"
    source: ClassVar[str] = "arXiv:2010.04245"
    order: ClassVar[int] = -1  # a temperature of another modifier would be divided away
    rescales: ClassVar[bool] = True
    caps: ClassVar[Caps] = Caps.everywhere(
        weights="exact",
        fit="finetune",
        decoding="kv",
        normalized=True,
        position_free=True,
        scaling=1.0,
        dtypes=frozenset({"float64", "float32", "bfloat16", "float16"}),
        onnx=True,
    )

    scale: Annotated[float, Float(5.0, 20.0, log=True)] = 10.0

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make one scale a head."""
        return _QKNorm(shape.heads, self.scale)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Three operations for each number in the queries and keys."""
        return Cost(flops=6.0 * length * shape.dim, peak_bytes=8.0 * length * shape.dim)


class _QKNorm(nn.Module):
    def __init__(self, heads: int, scale: float) -> None:
        super().__init__()
        self.scale_H = nn.Parameter(torch.full((heads,), scale))

    def on_qk(self, q_BHLK: Tensor, k_BGSK: Tensor, mask: Mask) -> tuple[Tensor, Tensor]:
        # the core will divide by the root of K
        scale_H11 = self.scale_H[:, None, None] * q_BHLK.shape[-1] ** 0.5
        return F.normalize(q_BHLK, dim=-1, eps=SHORTEST) * scale_H11, F.normalize(k_BGSK, dim=-1, eps=SHORTEST)
