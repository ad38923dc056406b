"""Linformer: keys and values are summed over the length into a few learned mixtures, and queries look at those.

Shapes: B batch, H heads, G key-value heads, L length, S source length, N max_len, K dim of one head, R mixtures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import (
    AttentionCore,
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
class Linformer(AttentionCore):
    """softmax(q (E k)) (F v), with E and F of shape (`mixtures`, max_len) shared by all heads. A token's share depends
    on where it stands, and an input longer than max_len is refused. Rows of weights need not sum to one."""

    name: ClassVar[str] = "linformer"
    source: ClassVar[str] = "arXiv:2006.04768"
    caps: ClassVar[Caps] = Caps(
        modes=frozenset({"bidirectional"}),
        masks=frozenset({"padding"}),
        weights="exact",
        saves=True,
        scaling=1.0,
        onnx=True,
    )

    mixtures: Annotated[int, Int(16, 256, log=True)] = 64

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the two projections over the length."""
        return _Linformer(self.mixtures, shape.max_len)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Two projections, and attention to what comes of them."""
        pairs = float(length * self.mixtures)
        return Cost(flops=8.0 * pairs * shape.dim, peak_bytes=4.0 * pairs * shape.heads)


class _Linformer(nn.Module):
    def __init__(self, mixtures: int, max_len: int) -> None:
        super().__init__()
        self.max_len = max_len
        self.of_keys_RN = nn.Parameter(torch.randn(mixtures, max_len) * max_len**-0.5)
        self.of_values_RN = nn.Parameter(torch.randn(mixtures, max_len) * max_len**-0.5)
        self.dense = DenseAttention()

    def forward(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, *, weights: bool = False) -> Mixed:
        source = k_BGSK.shape[2]
        if source > self.max_len:
            raise BadInput(f"'linformer' takes at most {self.max_len} tokens, not {source}.", "Cut the input.")
        # a slice would be a view where it is whole and a copy where it is not, which no exported program can be both
        at_S = torch.arange(source, device=k_BGSK.device)
        of_keys_RS, of_values_RS = (each.index_select(1, at_S) for each in (self.of_keys_RN, self.of_values_RN))
        of_keys_B1RS, of_values_B1RS = (
            each[None, None] if mask.padding is None else each * mask.padding[:, None, None]
            for each in (of_keys_RS, of_values_RS)
        )
        k_BGRK, v_BGRK = of_keys_B1RS @ k_BGSK, of_values_B1RS @ v_BGSK
        if not weights:
            return Mixed(fused_softmax(q_BHLK, k_BGRK, v_BGRK, Mask()))
        mixed = self.dense(q_BHLK, k_BGRK, v_BGRK, Mask(), weights=True)
        shown: Mixed = mixed._replace(weights=mixed.weights @ of_values_B1RS)
        return shown
