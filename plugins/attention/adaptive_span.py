"""Adaptive span: each head learns how far back it looks, and pays for looking far.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head, O offsets of a key from a
query.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import AttentionModifier, AttentionShape, Caps, Choice, Cost, Float, by_offset, offsets


@dataclass(frozen=True, kw_only=True)
class AdaptiveSpan(AttentionModifier):
    """Multiply each softmax power by m = (ramp + span - distance) / ramp, cut to [0, 1], and hide what m makes zero.
    Spans are learned from `start` on, a share of the layer's `max_len`; `price` times their mean in tokens joins the
    loss. Without causality a span reaches to both sides. It learns what could be cut, and cuts nothing itself: it costs
    what dense attention costs, by the plain kernel on a CPU."""

    name: ClassVar[str] = "adaptive_span"
    source: ClassVar[str] = "arXiv:1905.07799"
    needs = "bias"
    caps: ClassVar[Caps] = Caps.everywhere(
        modes=frozenset({"bidirectional", "causal"}),
        weights="exact",
        fit="exact",
        decoding="kv",
        normalized=True,
        dtypes=frozenset({"float64", "float32", "bfloat16", "float16"}),
        onnx=True,
    )
    neutral: ClassVar[Mapping[str, Any] | None] = {"start": 1.0}

    start: Annotated[float, Float(0.0, 1.0)] = 0.0
    ramp: Annotated[int, Choice(8, 16, 32, 64)] = 32
    price: Annotated[float, Float(1e-7, 1e-4, log=True)] = 5e-7

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make one span a head."""
        return _Spans(shape, self)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """One number for each score, to keep and to add, and the weights that the plain kernel keeps."""
        pairs = float(length**2 * shape.heads)
        return Cost(flops=pairs, peak_bytes=12.0 * pairs)


class _Spans(nn.Module):
    def __init__(self, shape: AttentionShape, chosen: AdaptiveSpan) -> None:
        super().__init__()
        self.max_len, self.ramp, self.price = shape.max_len, chosen.ramp, chosen.price
        self.share_H = nn.Parameter(torch.full((shape.heads,), float(chosen.start)))

    @property
    def spans_H(self) -> Tensor:
        """How many tokens away each head sees in full."""
        # a span below zero would hide a token from itself
        return self.share_H.clamp(0.0, 1.0) * self.max_len

    def bias(self, q_BHLK: Tensor, k_BGSK: Tensor) -> Tensor:
        length, source = q_BHLK.shape[2], k_BGSK.shape[2]
        exact = torch.promote_types(q_BHLK.dtype, torch.float32)
        away_O = offsets(length, source, q_BHLK.device, exact).abs()
        m_HO = ((self.ramp + self.spans_H.to(exact)[:, None] - away_O) / self.ramp).clamp(0.0, 1.0)
        hidden_HO = m_HO == 0.0
        # the logarithm of zero would make gradients nan, so that of one stands in for it
        bias_HO = m_HO.masked_fill(hidden_HO, 1.0).log().masked_fill(hidden_HO, -torch.inf).to(q_BHLK.dtype)
        return by_offset(bias_HO, length, source)[None]

    def losses(self) -> dict[str, Tensor]:
        return {"span": self.price * self.spans_H.mean()}

    @torch.no_grad()
    def step(self, done: float) -> None:
        self.share_H.clamp_(0.0, 1.0)  # outside, it would have no gradient to come back by
