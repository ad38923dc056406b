"""Relative position bias: each head learns a number for each distance, and far distances share one by buckets.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head, O offsets of a key from a
query, N buckets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import AttentionModifier, AttentionShape, Caps, Cost, Int, by_offset, offsets


@dataclass(frozen=True, kw_only=True)
class RelativeBias(AttentionModifier):
    """Add T5's bias to the scores. Half of the buckets hold one distance each, the others ever more, up to
    `max_distance`, from which on all is one. Unless attention is causal, each direction has half of the buckets. All
    begin at zero, which is softmax. A learned bias takes torch's plain kernel on a CPU, not the flash one."""

    name: ClassVar[str] = "relative_bias"
    source: ClassVar[str] = "arXiv:1910.10683"
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
    neutral: ClassVar[Mapping[str, Any] | None] = {}

    buckets: Annotated[int, Int(16, 64, step=16)] = 32
    max_distance: Annotated[int, Int(64, 512, log=True)] = 128

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make one table a head."""
        return _Table(shape.heads, self.buckets, self.max_distance, causal=shape.mode == "causal")

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """One number for each score, to keep and to add, and the weights that the plain kernel keeps."""
        pairs = float(length**2 * shape.heads)
        return Cost(flops=pairs, peak_bytes=12.0 * pairs)


class _Table(nn.Module):
    def __init__(self, heads: int, buckets: int, max_distance: int, *, causal: bool) -> None:
        super().__init__()
        self.table_HN = nn.Parameter(torch.zeros(heads, buckets))
        self.causal = causal
        self.side = buckets if causal else buckets // 2
        self.single = self.side // 2
        self.rate = math.log(max_distance / self.single)

    def bias(self, q_BHLK: Tensor, k_BGSK: Tensor) -> Tensor:
        length, source = q_BHLK.shape[2], k_BGSK.shape[2]
        ahead_O = offsets(length, source, q_BHLK.device)
        bias_HO = self.table_HN[:, self._bucket(ahead_O)]
        return by_offset(bias_HO, length, source)[None]

    def _bucket(self, ahead_O: Tensor) -> Tensor:
        away_O = -ahead_O.clamp_max(0) if self.causal else ahead_O.abs()
        grown_O = torch.log(away_O.float() / self.single) / self.rate
        far_O = self.single + (grown_O * (self.side - self.single)).long()
        bucket_O = torch.where(away_O < self.single, away_O, far_O.clamp_max(self.side - 1))
        return bucket_O if self.causal else bucket_O + self.side * (ahead_O > 0)
