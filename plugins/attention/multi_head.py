"""Multi-head attention: what everybody uses, and what every other variant is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from deepmine_auto import AttentionCore, AttentionShape, Caps, FusedSoftmax


@dataclass(frozen=True, kw_only=True)
class MultiHead(AttentionCore):
    """Softmax of scaled dot products, by torch's fused kernel. Each output is a convex mixture of the values that its
    query may see; a query that may see none gets zero."""

    name: ClassVar[str] = "multi_head"
    source: ClassVar[str] = "arXiv:1706.03762"
    caps: ClassVar[Caps] = Caps.everywhere(
        weights="exact",
        matrix=True,
        fit="exact",
        decoding="kv",
        normalized=True,
        position_free=True,
        dtypes=frozenset({"float64", "float32", "bfloat16", "float16"}),
        onnx=True,
    )
    neutral: ClassVar[Mapping[str, Any] | None] = {}

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the module; softmax learns nothing."""
        return FusedSoftmax()
