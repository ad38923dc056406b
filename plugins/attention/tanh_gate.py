"""Tanh gate: a layer opens as it learns, from shut, so that a new layer does not disturb those around it.

Shapes: B batch, L length, D dim, H heads, K dim of one head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import AttentionModifier, AttentionShape, Caps, Cost, Float


@dataclass(frozen=True, kw_only=True)
class TanhGate(AttentionModifier):
    """Multiply what a layer mixed by tanh(g), with one g a layer, learned from `start` on. At 0 nothing passes but the
    bias of the output projection, and at first only g learns. Weights are those before the gate."""

    name: ClassVar[str] = "tanh_gate"
    source: ClassVar[str] = "arXiv:2204.14198"
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

    start: Annotated[float, Float(0.0, 1.0)] = 0.0

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the gate."""
        return _TanhGate(self.start)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """One product for each number in the output."""
        return Cost(flops=1.0 * length * shape.dim, peak_bytes=4.0 * length * shape.dim)


class _TanhGate(nn.Module):
    def __init__(self, start: float) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.tensor(float(start)))

    def on_out(self, out_BHLK: Tensor, x_BLD: Tensor) -> Tensor:
        return out_BHLK * self.g.tanh()
