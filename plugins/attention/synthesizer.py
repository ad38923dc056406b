"""Synthesizer: weights that are learned for pairs of positions, whatever the tokens are.

Shapes: B batch, H heads, G key-value heads, L length, S source length, N max_len, D dim, K dim of one head, R rank,
W the larger of K and R.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmine_auto import (
    AttentionMixer,
    AttentionShape,
    BadInput,
    Caps,
    Cost,
    DenseAttention,
    Int,
    Mask,
    Mixed,
    fused_softmax,
)


@dataclass(frozen=True, kw_only=True)
class Synthesizer(AttentionMixer):
    """softmax(a b) v, with learned a and b of `rank` numbers for each position and head: the paper's factorised random
    form. Tokens decide nothing about who looks at whom. An input longer than max_len is refused."""

    name: ClassVar[str] = "synthesizer"
    source: ClassVar[str] = "arXiv:2005.00743"
    caps: ClassVar[Caps] = Caps.everywhere(
        modes=frozenset({"bidirectional", "causal"}), weights="exact", decoding="state", normalized=True, onnx=True
    )

    rank: Annotated[int, Int(4, 64, log=True)] = 8

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the factors and the projections of values and outputs."""
        return _Synthesizer(shape, self.rank)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Dense softmax attention in heads of at least `rank` dims, and two projections."""
        width = max(shape.head_dim, self.rank)
        pairs, projections = 4.0 * length**2 * width * shape.heads, 4.0 * length * shape.dim**2
        return Cost(flops=pairs + projections, peak_bytes=4.0 * length**2 * shape.heads)


class _Synthesizer(nn.Module):
    def __init__(self, shape: AttentionShape, rank: int) -> None:
        super().__init__()
        self.head_dim, self.max_len, self.rank = shape.head_dim, shape.max_len, rank
        self.to_v = nn.Linear(shape.dim, shape.kv_heads * shape.head_dim, bias=False)
        self.to_out = nn.Linear(shape.dim, shape.dim)
        self.a_HNR = nn.Parameter(torch.randn(shape.heads, shape.max_len, rank))
        self.b_GNR = nn.Parameter(torch.randn(shape.kv_heads, shape.max_len, rank))
        self.dense = DenseAttention()

    def forward(
        self, x_BLD: Tensor, mask: Mask, state: tuple[Tensor, ...] | None = None, *, weights: bool = False
    ) -> tuple[Mixed, tuple[Tensor, ...] | None]:
        new_BGLK = self.to_v(x_BLD).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        v_BGSK = torch.cat((*(state or ()), new_BGLK), 2)
        length, source = x_BLD.shape[1], v_BGSK.shape[2]
        if source > self.max_len:
            raise BadInput(f"'synthesizer' takes at most {self.max_len} tokens, not {source}.", "Cut the input.")
        mixed = self._mixed(source - length, v_BGSK, mask, weights)
        out_BLD = self.to_out(mixed.out[..., : self.head_dim].transpose(1, 2).flatten(2))
        return mixed._replace(out=out_BLD), None if state is None else (v_BGSK,)

    def _mixed(self, first: int, v_BGSK: Tensor, mask: Mask, weights: bool) -> Mixed:
        """The factors stand in for queries and keys; with zeros up to W dims all run in the fused kernel."""
        rows, _, source, _ = v_BGSK.shape
        width = max(self.head_dim, self.rank)
        scale = math.sqrt(width / self.rank)  # the kernel divides by the root of W, and scores are to begin normal
        # a slice would be a view where it is whole and a copy where it is not, which no exported program can be both
        at_S = torch.arange(source, device=v_BGSK.device)
        a_BHLW, b_BGSW = (
            F.pad(each, (0, width - self.rank)).expand(rows, -1, -1, -1)
            for each in (self.a_HNR.index_select(1, at_S[first:]) * scale, self.b_GNR.index_select(1, at_S))
        )
        v_BGSW = F.pad(v_BGSK, (0, width - self.head_dim))
        if weights:
            mixed: Mixed = self.dense(a_BHLW, b_BGSW, v_BGSW, mask, weights=True)
            return mixed
        return Mixed(fused_softmax(a_BHLW, b_BGSW, v_BGSW, mask))
