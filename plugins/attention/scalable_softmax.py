"""Scalable softmax: the more keys a query may see, the sharper it looks, so that attention does not fade with length.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmine_auto import AttentionModifier, AttentionShape, Caps, Cost, Float, Mask


@dataclass(frozen=True, kw_only=True)
class ScalableSoftmax(AttentionModifier):
    """Scale each query by s log n, with n the keys that the mask lets it see, and s learned by each head from `start`
    on. A query that sees one key has no choice, so that log 1 = 0 does no harm. Keeps the fused kernel."""

    name: ClassVar[str] = "scalable_softmax"
    source: ClassVar[str] = "arXiv:2501.19399"
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

    start: Annotated[float, Float(0.1, 1.0, log=True)] = 0.43

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make one s a head."""
        return _Scalable(shape.heads, self.start)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """One product for each number in the queries."""
        return Cost(flops=1.0 * length * shape.dim, peak_bytes=4.0 * length * shape.dim)


class _Scalable(nn.Module):
    def __init__(self, heads: int, start: float) -> None:
        super().__init__()
        self.s_H = nn.Parameter(torch.full((heads,), start))

    def on_qk(self, q_BHLK: Tensor, k_BGSK: Tensor, mask: Mask) -> tuple[Tensor, Tensor]:
        seen = _seen(mask, q_BHLK.shape[2], k_BGSK.shape[2], q_BHLK.device).clamp_min(1)  # none: the row is zero anyway
        exact = torch.promote_types(q_BHLK.dtype, torch.float32)
        log_n = seen.to(exact).log().to(q_BHLK.dtype)
        return q_BHLK * (self.s_H[:, None] * log_n)[..., None], k_BGSK


def _seen(mask: Mask, length: int, source: int, device: torch.device) -> Tensor:
    """How many keys each query may see, broadcastable to (B, H, L); without L times S numbers unless the mask has
    them already."""
    if mask.bias is not None or mask.dense is not None:
        keep = mask.allowed(length, source, device)
        assert keep is not None
        return keep.expand(*keep.shape[:-1], source).sum(-1)
    left, right = mask.window or (source + length, source + length)
    at_L = torch.arange(source - length, source, device=device)
    begin_L, end_L = at_L - left, at_L + 1 + (0 if mask.causal else right)
    real_BS = torch.ones(1, source, device=device) if mask.padding is None else mask.padding
    before_BS = F.pad(real_BS.long().cumsum(-1), (1, 0))  # real keys before each place
    return (before_BS[:, end_L.clamp(0, source)] - before_BS[:, begin_L.clamp(0, source)])[:, None]
