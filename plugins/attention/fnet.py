"""FNet: tokens are mixed by a Fourier transform, which learns nothing.

Shapes: B batch, L length, D dim, R rows of one length, S real tokens of one row.
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
        for at in _alike(mask.padding):
            out_BLD[at] = _transformed(x_BLD[at])
        return Mixed(out_BLD), state


def _alike(keep_BL: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Rows with as many real tokens as each other, (R, 1), and where these stand, (R, S), so that one transform serves
    them all; of no token there is none. A GPU is waited for once."""
    lengths, real_first_BL = keep_BL.sum(-1).tolist(), (~keep_BL).byte().argsort(dim=-1, stable=True)
    found = []
    for length in sorted({*lengths} - {0}):
        rows = [[row] for row, each in enumerate(lengths) if each == length]
        row_R1 = torch.tensor(rows, device=keep_BL.device)
        found.append((row_R1, real_first_BL[row_R1[:, 0], :length]))
    return found


def _transformed(x: Tensor) -> Tensor:
    mixed: Tensor = torch.fft.fft2(x, norm="ortho").real
    return mixed
