"""Query temperature: each query decides from itself how sharply it looks.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head, R hidden width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmine_auto import AttentionModifier, AttentionShape, Caps, Cost, Int, Mask


@dataclass(frozen=True, kw_only=True)
class QueryTemperature(AttentionModifier):
    """Scale each query by 1 + tanh f(q), between 0 and 2, where f has one hidden layer of `width` that the heads share.
    It begins at 1, which is softmax. This is the paper's query part alone: `scalable_softmax` minds positions, and
    values stay as they are. Keeps the fused kernel."""

    name: ClassVar[str] = "query_temperature"
    source: ClassVar[str] = "arXiv:2411.12892"
    caps: ClassVar[Caps] = Caps.everywhere(
        weights="exact",
        fit="exact",
        decoding="kv",
        normalized=True,
        position_free=True,
        scaling=1.0,
        dtypes=frozenset({"float64", "float32", "bfloat16", "float16"}),
        onnx=True,
    )
    neutral: ClassVar[Mapping[str, Any] | None] = {}

    width: Annotated[int, Int(4, 64, log=True)] = 16

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the hidden layer, and one output a head."""
        return _Sharpness(shape.heads, shape.head_dim, self.width)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """The hidden layer, for each query of each head."""
        hidden = float(length * shape.heads * self.width)
        return Cost(flops=2.0 * hidden * (shape.head_dim + 1), peak_bytes=8.0 * hidden + 4.0 * length * shape.dim)


class _Sharpness(nn.Module):
    def __init__(self, heads: int, head_dim: int, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(head_dim, width)
        self.out_HR = nn.Parameter(torch.zeros(heads, width))

    def on_qk(self, q_BHLK: Tensor, k_BGSK: Tensor, mask: Mask) -> tuple[Tensor, Tensor]:
        f_BHL1 = F.gelu(self.hidden(q_BHLK)) @ self.out_HR[..., None]
        return q_BHLK * (1.0 + f_BHL1.tanh()), k_BGSK
