"""Registers: a few learned keys and values that every query sees beside those of the input.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head, N keys that all see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmine_auto import AttentionCore, AttentionShape, Caps, Choice, Cost, Mask, Mixed, fused_softmax


@dataclass(frozen=True, kw_only=True)
class Registers(AttentionCore):
    """Softmax over the keys and `count` learned ones a key-value head, by the fused kernel: what the persistent memory
    of the paper adds to attention. Weights are not shown, because those of the keys do not make up the whole output. A
    query that may see no key gets zero, as everywhere."""

    name: ClassVar[str] = "registers"
    source: ClassVar[str] = "arXiv:1907.01470"
    caps: ClassVar[Caps] = Caps.everywhere(fit="finetune", decoding="kv", position_free=True, onnx=True)
    neutral: ClassVar[Mapping[str, Any] | None] = {"count": 0}

    count: Annotated[int, Choice(1, 4, 8, 16)] = 4

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the learned keys and values."""
        return _Registers(shape.kv_heads, self.count, shape.head_dim)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Dense softmax attention over more keys."""
        pairs = float(length * (length + self.count))
        return Cost(flops=4.0 * pairs * shape.dim, peak_bytes=4.0 * pairs * shape.heads)


class _Registers(nn.Module):
    def __init__(self, kv_heads: int, count: int, head_dim: int) -> None:
        super().__init__()
        self.kv_heads = kv_heads
        self.k_GNK = nn.Parameter(torch.randn(kv_heads, count, head_dim) * head_dim**-0.5)
        self.v_GNK = nn.Parameter(torch.randn(kv_heads, count, head_dim) * head_dim**-0.5)

    def forward(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, *, weights: bool = False) -> Mixed:
        # keys may come repeated for the query heads; registers then are too
        repeats = k_BGSK.shape[1] // self.kv_heads
        more = (each.repeat_interleave(repeats, 0) for each in (self.k_GNK, self.v_GNK))
        return Mixed(softmax_beside(q_BHLK, k_BGSK, v_BGSK, mask, *more))


def softmax_beside(q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, k_GNK: Tensor, v_GNK: Tensor) -> Tensor:
    """Softmax attention over the keys and N more, which no mask hides; zero where a query may see no key of its own."""
    length, source, more = q_BHLK.shape[2], k_BGSK.shape[2], k_GNK.shape[1]
    k_BGSK = torch.cat((k_GNK.expand(*k_BGSK.shape[:2], -1, -1), k_BGSK), 2)
    v_BGSK = torch.cat((v_GNK.expand(*v_BGSK.shape[:2], -1, -1), v_BGSK), 2)
    if mask.features == {"causal"} and length == source:
        # as many queries in front of the first keep torch's own causal kernel, which builds no mask
        return fused_softmax(F.pad(q_BHLK, (0, 0, more, 0)), k_BGSK, v_BGSK, mask)[:, :, more:]
    keep = mask.allowed(length, source, q_BHLK.device)
    out_BHLK = fused_softmax(q_BHLK, k_BGSK, v_BGSK, _opened(mask, keep, source, more))
    return out_BHLK if keep is None else out_BHLK.masked_fill(~keep.any(-1, keepdim=True), 0.0)


def _opened(mask: Mask, keep: Tensor | None, source: int, more: int) -> Mask:
    """The mask with `more` visible keys in front."""

    def front(x: Tensor, value: float) -> Tensor:
        return F.pad(x.expand(*x.shape[:-1], source), (more, 0), value=value)

    return Mask(
        dense=None if keep is None else front(keep, True),
        bias=None if mask.bias is None else front(mask.bias, 0.0),
    )
