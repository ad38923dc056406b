"""Soft cap: no score passes a limit, and those far below it hardly change.

Shapes: B batch, H heads, L length, S source length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor, nn

from deepmine_auto import AttentionModifier, AttentionShape, Caps, Cost, Float


@dataclass(frozen=True, kw_only=True)
class SoftCap(AttentionModifier):
    """Replace scores by cap tanh(score / cap), before any bias is added. Needs the scores, so that the fused kernel is
    lost on a CPU and for short inputs; `qk_norm` bounds scores and keeps it."""

    name: ClassVar[str] = "soft_cap"
    source: ClassVar[str] = "arXiv:2408.00118"
    needs = "matrix"
    caps: ClassVar[Caps] = Caps.everywhere(
        weights="exact",
        fit="finetune",
        decoding="kv",
        normalized=True,
        position_free=True,
        dtypes=frozenset({"float64", "float32", "bfloat16", "float16"}),
        onnx=True,
    )

    cap: Annotated[float, Float(15.0, 100.0, log=True)] = 50.0

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the module; it learns nothing."""
        return _SoftCap(self.cap)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """A tanh for each score (some ten operations), kept for the backward pass as the weights are."""
        pairs = float(length**2 * shape.heads)
        return Cost(flops=10.0 * pairs, peak_bytes=12.0 * pairs)


class _SoftCap(nn.Module):
    def __init__(self, cap: float) -> None:
        super().__init__()
        self.cap = cap

    def on_score(self, score: Tensor) -> Tensor:
        return (score / self.cap).tanh() * self.cap
