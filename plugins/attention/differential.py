"""Differential attention: one softmax map minus another, so that what both look at cancels.

Shapes: B batch, L length, D dim, H heads, G key-value heads, S source length, K dim of one head, J = K / 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import (
    AttentionMixer,
    AttentionShape,
    BadInput,
    Caps,
    Cost,
    DenseAttention,
    Mask,
    Mixed,
    fused_softmax,
)


@dataclass(frozen=True, kw_only=True)
class Differential(AttentionMixer):
    """(softmax(q1 k1) - lambda softmax(q2 k2)) v, then an RMS norm of each head, where q1 and q2 are the halves of one
    head's query. Parameters are those of multi-head attention and 3 K more. Rows of weights sum to 1 - lambda."""

    name: ClassVar[str] = "differential"
    source: ClassVar[str] = "arXiv:2410.05258"
    caps: ClassVar[Caps] = Caps(
        modes=frozenset({"bidirectional", "causal"}),
        masks=frozenset({"padding", "causal", "window"}),
        weights="exact",
        position_free=True,
        onnx=True,
    )

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make projections, lambda and norm. Raises BadInput where a head has no halves."""
        if shape.head_dim % 2:
            raise BadInput(
                f"'{self.name}' halves each head, and a head has {shape.head_dim} dims.", "Choose other heads."
            )
        return _Differential(shape)

    def work(self) -> float:
        """Return 1.5: a trial on tweets took so many times as long as with softmax."""
        return 1.5

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Twice dense softmax attention, and the four projections that other variants leave to the host."""
        pairs, projections = 8.0 * length**2 * shape.dim, 8.0 * length * shape.dim**2
        return Cost(flops=pairs + projections, peak_bytes=8.0 * length**2 * shape.heads)


class _Differential(nn.Module):
    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()
        self.head_dim = shape.head_dim
        kv_dim = shape.kv_heads * shape.head_dim
        self.split = (shape.dim, kv_dim, kv_dim)
        self.to_qkv = nn.Linear(shape.dim, sum(self.split), bias=False)
        self.to_out = nn.Linear(shape.dim, shape.dim)
        self.balance = _Lambda(shape.head_dim // 2, shape.layer)
        self.norm = nn.RMSNorm(shape.head_dim, eps=1e-5)
        self.dense = DenseAttention()
        self.register_buffer("halves_2K", torch.eye(2).repeat_interleave(shape.head_dim // 2, 1), persistent=False)

    def forward(self, x_BLD: Tensor, mask: Mask, state: None = None, *, weights: bool = False) -> tuple[Mixed, None]:
        q, k, v = (
            x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for x in self.to_qkv(x_BLD).split(self.split, -1)
        )
        twice_BHLK = self._twice(q)
        mixed = (
            self.dense(twice_BHLK, k, v, mask, weights=True)
            if weights
            else Mixed(fused_softmax(twice_BHLK, k, v, mask))
        )
        difference_BHLK = self._difference(mixed.out)
        out_BHLK = self.norm(difference_BHLK) * (1.0 - self.balance.start)
        out_BLD = self.to_out(out_BHLK.transpose(1, 2).flatten(2))
        return Mixed(out_BLD, None if mixed.weights is None else self._difference(mixed.weights)), state

    def _twice(self, q_BHLK: Tensor) -> Tensor:
        """Each head twice, with one half zero: its product with the whole key is the other half's, so that both maps
        run in one fused call. The root of two makes the kernel's scale that of J dims."""
        twice: Tensor = (q_BHLK[:, :, None] * (math.sqrt(2.0) * self.get_buffer("halves_2K"))[:, None]).flatten(1, 2)
        return twice

    def _difference(self, maps: Tensor) -> Tensor:
        first, second = maps.unflatten(1, (-1, 2)).unbind(2)
        difference: Tensor = first - self.balance() * second
        return difference


class _Lambda(nn.Module):
    """lambda = exp(a b) - exp(c d) + start; later layers start with more."""

    def __init__(self, half: int, layer: int) -> None:
        super().__init__()
        self.start = 0.8 - 0.6 * math.exp(-0.3 * layer)
        self.products_4J = nn.Parameter(torch.randn(4, half) * 0.1)

    def forward(self) -> Tensor:
        a, b, c, d = self.products_4J
        return torch.exp(a @ b) - torch.exp(c @ d) + self.start
