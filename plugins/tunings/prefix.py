"""Prefix tuning: each layer's attention also looks at a few keys and values that no word has, and that learn.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head, P length of the prefix.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmine_auto import Choice, Mask, Tuning, beside_attention, fused_softmax


@dataclass(frozen=True, kw_only=True)
class Prefix(Tuning):
    """In every layer of the highest share `top` of the blocks, as in P-tuning v2 (arXiv:2110.07602), and without a
    network that makes the prefix. A learned gate of each head leads from attention without it, 0, where training
    begins, to attention with it, 1; that takes attention twice. Needs a model whose softmax stays in its place. It
    wants a large learning rate."""

    name: ClassVar[str] = "prefix"
    source: ClassVar[str] = "arXiv:2101.00190"
    rate: ClassVar[float] = 5e-3

    length: Annotated[int, Choice(4, 8, 16, 32)] = 16
    top: Annotated[float, Choice(0.25, 0.5, 1.0)] = 1.0

    def apply(self, model: nn.Module) -> None:
        """Freeze the model, and put a prefix into each layer. Raises BadInput where it computes attention by itself,
        and Refused where variants stand in it."""
        model.requires_grad_(False)
        beside_attention(model, lambda heads, kv_heads, dim: _Prefix(heads, kv_heads, dim, self.length), self.top)


class _Prefix(nn.Module):
    def __init__(self, heads: int, kv_heads: int, head_dim: int, length: int) -> None:
        super().__init__()
        self.length = length
        self.k_GPK = nn.Parameter(torch.randn(kv_heads, length, head_dim) * head_dim**-0.5)
        self.v_GPK = nn.Parameter(torch.randn(kv_heads, length, head_dim) * head_dim**-0.5)
        self.gate_H = nn.Parameter(torch.zeros(heads))

    def forward(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask) -> Tensor:
        """Return (B, H, L, K)."""
        without_BHLK = fused_softmax(q_BHLK, k_BGSK, v_BGSK, mask)
        k_BGSK, v_BGSK = _before(self.k_GPK, k_BGSK), _before(self.v_GPK, v_BGSK)
        with_BHLK = fused_softmax(q_BHLK, k_BGSK, v_BGSK, _behind(mask, self.length))
        # in mixed precision attention may return other floats than its queries are
        return without_BHLK.lerp(with_BHLK, self.gate_H[:, None, None].to(with_BHLK.dtype))


def _before(prefix_GPK: Tensor, x_BGSK: Tensor) -> Tensor:
    return torch.cat((prefix_GPK.to(x_BGSK.dtype).expand(len(x_BGSK), -1, -1, -1), x_BGSK), 2)


def _behind(mask: Mask, length: int) -> Mask:
    """The mask of keys behind a prefix that everybody sees."""
    padding_BS = None if mask.padding is None else F.pad(mask.padding, (length, 0), value=True)
    return replace(mask, padding=padding_BS, bias=None if mask.bias is None else F.pad(mask.bias, (length, 0)))
