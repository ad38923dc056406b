"""Grouped-query attention: several query heads share one head of keys and values; with one for all, multi-query."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from torch import nn

from deepmine_auto import AttentionCore, AttentionShape, Caps, Choice, FusedSoftmax


@dataclass(frozen=True, kw_only=True)
class GroupedQuery(AttentionCore):
    """Softmax attention with `kv_heads` heads of keys and values. Equals multi-head attention whose key and value heads
    are repeated; `kv_heads=1` is multi-query attention (arXiv:1911.02150)."""

    name: ClassVar[str] = "grouped_query"
    source: ClassVar[str] = "arXiv:2305.13245"
    caps: ClassVar[Caps] = Caps.everywhere(
        weights="exact",
        matrix=True,
        fit="finetune",
        decoding="kv",
        normalized=True,
        position_free=True,
        dtypes=frozenset({"float64", "float32", "bfloat16", "float16"}),
        onnx=True,
    )

    kv_heads: Annotated[int, Choice(1, 2)] = 2

    def adapt(self, shape: AttentionShape) -> AttentionShape:
        """Ask for fewer key-value heads."""
        return replace(shape, kv_heads=self.kv_heads)

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the module; softmax learns nothing."""
        return FusedSoftmax()
