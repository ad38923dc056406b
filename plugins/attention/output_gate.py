"""Gated attention: what a layer reads decides how much of each head's output passes.

Shapes: B batch, L length, D dim, H heads, K dim of one head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor, nn

from deepmine_auto import AttentionModifier, AttentionShape, Caps, Choice, Cost, Float


@dataclass(frozen=True, kw_only=True)
class OutputGate(AttentionModifier):
    """Multiply heads by sigmoid(W x + b), with one gate a head or one an element. W begins at zero and b at `start`, so
    that at first every gate is sigmoid(start): 0.5 at 0, 0.98 at 4. Weights are those before the gate. Keeps the fused
    kernel."""

    name: ClassVar[str] = "output_gate"
    source: ClassVar[str] = "arXiv:2505.06708"
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

    gates: Annotated[str, Choice("headwise", "elementwise")] = "elementwise"
    start: Annotated[float, Float(0.0, 4.0)] = 2.0

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the gate's projection."""
        return _Gate(shape, 1 if self.gates == "headwise" else shape.head_dim, self.start)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """One projection of the input, and one product for each number in the output."""
        gates = shape.heads if self.gates == "headwise" else shape.dim
        return Cost(flops=2.0 * length * shape.dim * gates + length * shape.dim, peak_bytes=8.0 * length * shape.dim)


class _Gate(nn.Module):
    def __init__(self, shape: AttentionShape, each: int, start: float) -> None:
        super().__init__()
        self.heads = shape.heads
        self.to_gates = nn.Linear(shape.dim, shape.heads * each)
        nn.init.zeros_(self.to_gates.weight)
        nn.init.constant_(self.to_gates.bias, start)

    def on_out(self, out_BHLK: Tensor, x_BLD: Tensor) -> Tensor:
        # headwise, K is one
        gates_BHLK: Tensor = self.to_gates(x_BLD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return out_BHLK * gates_BHLK.sigmoid()
