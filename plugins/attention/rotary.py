"""Rotary position embedding: queries and keys are turned by angles that grow with position, so that their product
depends on how far apart they are and on nothing else.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head, R half the turned dims.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import AttentionModifier, AttentionShape, BadInput, Caps, Choice, Cost, Float, Mask


@dataclass(frozen=True, kw_only=True)
class Rotary(AttentionModifier):
    """Turn the first `fraction` of each head's dims, pairwise, by wavelengths from 2 pi to 2 pi `base` tokens. Keeps
    norms and the fused kernel. The last query stands at the last key. On `linear` it is not the linear attention of the
    paper, which turns features and leaves their sum as it is: here vectors are turned, and then become features."""

    name: ClassVar[str] = "rotary"
    source: ClassVar[str] = "arXiv:2104.09864"
    caps: ClassVar[Caps] = Caps.everywhere(
        modes=frozenset({"bidirectional", "causal"}),
        weights="exact",
        decoding="kv",
        normalized=True,
        scaling=1.0,
        dtypes=frozenset({"float64", "float32", "bfloat16", "float16"}),
        onnx=True,
    )

    base: Annotated[float, Float(1e3, 1e6, log=True)] = 1e4
    fraction: Annotated[float, Choice(0.25, 0.5, 1.0)] = 1.0

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the module; the angles are fixed. Raises BadInput where a head has no pair of dims."""
        if shape.head_dim < 2:
            raise BadInput(
                f"'{self.name}' turns pairs of dims, and a head has {shape.head_dim}.", "Choose fewer heads."
            )
        return _Rotation(max(1, int(self.fraction * shape.head_dim) // 2), self.base)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Six operations a pair, for queries and keys."""
        return Cost(flops=6.0 * length * shape.dim, peak_bytes=8.0 * length * shape.dim)


class _Rotation(nn.Module):
    def __init__(self, pairs: int, base: float) -> None:
        super().__init__()
        self.pairs = pairs
        self.log_base = math.log(base)

    def on_qk(self, q_BHLK: Tensor, k_BGSK: Tensor, mask: Mask) -> tuple[Tensor, Tensor]:
        length, source = q_BHLK.shape[2], k_BGSK.shape[2]
        first = min(0, source - length)  # the last query stands at the last key, whichever side is longer
        turns = self._turns(first, source, k_BGSK)
        return self._turn(q_BHLK, *(each[-length:] for each in turns)), self._turn(
            k_BGSK, *(each[-source:] for each in turns)
        )

    def _turns(self, first: int, end: int, like: Tensor) -> tuple[Tensor, Tensor]:
        exact = torch.promote_types(like.dtype, torch.float32)  # far positions need more digits than half floats have
        rate_R = torch.exp(torch.arange(self.pairs, device=like.device, dtype=exact) * (-self.log_base / self.pairs))
        angle_LR = torch.arange(first, end, device=like.device, dtype=exact)[:, None] * rate_R
        return angle_LR.cos().to(like.dtype), angle_LR.sin().to(like.dtype)

    def _turn(self, x_BHLK: Tensor, cos_LR: Tensor, sin_LR: Tensor) -> Tensor:
        a, b, rest = x_BHLK.split((self.pairs, self.pairs, x_BHLK.shape[-1] - 2 * self.pairs), -1)
        return torch.cat((a * cos_LR - b * sin_LR, b * cos_LR + a * sin_LR, rest), -1)
