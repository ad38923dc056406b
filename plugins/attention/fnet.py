"""FNet: tokens are mixed by a Fourier transform, which learns nothing.

Shapes: B batch, L length, D dim, S real tokens of one row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import AttentionMixer, AttentionShape, Caps, Cost, Mask, Mixed


@dataclass(frozen=True, kw_only=True)
class FNet(AttentionMixer):
    """The real part of a transform over dims and tokens. Each row is transformed at its own length, so that padding
    changes nothing; padded tokens get zero. Divided by sqrt(L D), which the paper leaves to the norm that follows and
    our blocks do not have."""

    name: ClassVar[str] = "fnet"
    source: ClassVar[str] = "arXiv:2105.03824"
    caps: ClassVar[Caps] = Caps(
        modes=frozenset({"bidirectional"}), masks=frozenset({"padding"}), saves=True, scaling=1.0
    )

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the module; it learns nothing."""
        return _FNet()

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """A fast transform takes some five operations for each number and doubling."""
        numbers = float(length * shape.dim)
        return Cost(flops=5.0 * numbers * math.log2(length * shape.dim), peak_bytes=16.0 * numbers)


class _FNet(nn.Module):
    def forward(self, x_BLD: Tensor, mask: Mask, state: None = None, *, weights: bool = False) -> tuple[Mixed, None]:
        if mask.padding is None:
            return Mixed(_transformed(x_BLD)), state
        out_BLD = torch.zeros_like(x_BLD)
        for row, real_L in enumerate(mask.padding):
            if real_L.any():  # of no token there is no transform
                out_BLD[row, real_L] = _transformed(x_BLD[row, real_L])
        return Mixed(out_BLD), state


def _transformed(x: Tensor) -> Tensor:
    mixed: Tensor = torch.fft.fft2(x, norm="ortho").real
    return mixed
