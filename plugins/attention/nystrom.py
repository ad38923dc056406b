"""Nystrom attention: softmax attention by way of a few landmarks, each the mean of a stretch of tokens.

Shapes: B batch, H heads, G key-value heads, L length, S source length (as long), K dim of one head, R landmarks,
W tokens of the convolution.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmine_auto import (
    AttentionCore,
    AttentionShape,
    Caps,
    Choice,
    Cost,
    FusedSoftmax,
    Int,
    Mask,
    Mixed,
    full_precision,
    fused_softmax,
    repeated,
)

STEPS = 6
"""Of the iteration for the pseudo-inverse, as in the paper."""


@dataclass(frozen=True, kw_only=True)
class Nystrom(AttentionCore):
    """softmax(q k~) pinv(softmax(q~ k~)) softmax(q~ k) v, with landmarks q~ and k~. A row of up to `landmarks` tokens
    gets softmax itself. Weights may be negative. Landmarks are means of queries too, so a decoder's past would see its
    future: there is no causal and no cross mode. Where `conv` is not zero, each output adds a learned sum of the values
    of so many neighbours, whose factors start at zero."""

    name: ClassVar[str] = "nystrom"
    source: ClassVar[str] = "arXiv:2102.03902"
    caps: ClassVar[Caps] = Caps(
        modes=frozenset({"bidirectional"}),
        masks=frozenset({"padding"}),
        weights="exact",
        fit="finetune",
        saves=True,
        scaling=1.0,
    )

    landmarks: Annotated[int, Int(16, 256, log=True)] = 64
    conv: Annotated[int, Choice(0, 35, 65)] = 0

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the module; the taps of the convolution are all that it learns."""
        return _Nystrom(shape.heads, self.landmarks, self.conv)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Dense softmax up to as many tokens as landmarks. Beyond: two attentions with landmarks, their means, and an
        inverse."""
        conv = 2.0 * self.conv * length * shape.dim
        if length <= self.landmarks:
            dense = super().cost(shape, length)
            return dense._replace(flops=dense.flops + conv)
        pairs, inverse = float(length * self.landmarks), 8.0 * STEPS * self.landmarks**3 * shape.heads
        return Cost(flops=14.0 * pairs * shape.dim + inverse + conv, peak_bytes=8.0 * pairs * shape.heads)


class _Landmarks(NamedTuple):
    """Landmarks of queries and keys, the tokens that each is the mean of, the inverse between them, the landmarks that
    stand for a token at all, and where there is padding, the rows in which each stands for one alone."""

    q_BHRK: Tensor
    k_BGRK: Tensor
    means_B1RS: Tensor
    inverse_BHRR: Tensor
    real: Mask
    single_B111: Tensor | None


class _Nystrom(FusedSoftmax):
    def __init__(self, heads: int, landmarks: int, conv: int) -> None:
        super().__init__()
        self.landmarks = landmarks
        self.taps_HW = nn.Parameter(torch.zeros(heads, conv)) if conv else None

    def weigh(self, q_BHLK: Tensor, k_BGSK: Tensor, mask: Mask, modifiers: Iterable[nn.Module] = ()) -> Tensor:
        if q_BHLK.shape[2] <= self.landmarks:
            weights_BHLS = super().weigh(q_BHLK, k_BGSK, mask, modifiers)
        else:
            few = self._chosen(q_BHLK, k_BGSK, mask)
            read_BHRS = few.inverse_BHRR @ super().weigh(few.q_BHRK, k_BGSK, mask)
            if few.single_B111 is not None:
                read_BHRS = torch.where(few.single_B111, few.means_B1RS, read_BHRS)
            weights_BHLS = super().weigh(q_BHLK, few.k_BGRK, few.real) @ read_BHRS
        return weights_BHLS if self.taps_HW is None else weights_BHLS + self._band(self.taps_HW, k_BGSK.shape[2], mask)

    def forward(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, *, weights: bool = False) -> Mixed:
        if weights:
            return super().forward(q_BHLK, k_BGSK, v_BGSK, mask, weights=True)
        if q_BHLK.shape[2] <= self.landmarks:
            out_BHLK = fused_softmax(q_BHLK, k_BGSK, v_BGSK, mask)
        else:
            few, heads = self._chosen(q_BHLK, k_BGSK, mask), q_BHLK.shape[1]
            read_BHRK = few.inverse_BHRR @ fused_softmax(few.q_BHRK, k_BGSK, v_BGSK, mask)
            if few.single_B111 is not None:
                own_BHRK = repeated(few.means_B1RS @ v_BGSK, heads)
                read_BHRK = torch.where(few.single_B111, own_BHRK, read_BHRK)
            out_BHLK = fused_softmax(q_BHLK, repeated(few.k_BGRK, heads), read_BHRK, few.real)
        return Mixed(out_BHLK if self.taps_HW is None else out_BHLK + self._convolved(self.taps_HW, v_BGSK, mask))

    def _chosen(self, q_BHLK: Tensor, k_BGSK: Tensor, mask: Mask) -> _Landmarks:
        real_BS = q_BHLK.new_ones((1, k_BGSK.shape[2]), dtype=torch.bool) if mask.padding is None else mask.padding
        members_BRS = _members(real_BS, self.landmarks)
        sizes_BR1 = members_BRS.sum(-1, keepdim=True)
        means_B1RS = (members_BRS / sizes_BR1.clamp(min=1)).to(q_BHLK.dtype)[:, None]
        q_BHRK, k_BGRK = means_B1RS @ q_BHLK, means_B1RS @ k_BGSK
        inverse_BHRR = pseudo_inverse(super().weigh(q_BHRK, k_BGRK, Mask())).to(q_BHLK.dtype)
        if mask.padding is None:
            return _Landmarks(q_BHRK, k_BGRK, means_B1RS, inverse_BHRR, Mask(), None)
        real, single_B = Mask(padding=sizes_BR1[..., 0] > 0), real_BS.sum(-1) <= self.landmarks
        return _Landmarks(q_BHRK, k_BGRK, means_B1RS, inverse_BHRR, real, single_B[:, None, None, None])

    def _convolved(self, taps_HW: Tensor, v_BGSK: Tensor, mask: Mask) -> Tensor:
        heads, width = taps_HW.shape
        v_BHSK = repeated(v_BGSK, heads)
        if mask.padding is not None:
            v_BHSK = v_BHSK * mask.padding[:, None, :, None]
        return F.conv2d(v_BHSK, taps_HW[:, None, :, None], padding=(width // 2, 0), groups=heads)

    def _band(self, taps_HW: Tensor, length: int, mask: Mask) -> Tensor:
        """The convolution as weights (B, H, L, S)."""
        width = taps_HW.shape[1]
        at_S = torch.arange(length, device=taps_HW.device)
        tap_LS = at_S - at_S[:, None] + width // 2
        band_HLS = taps_HW[:, tap_LS.clamp(0, width - 1)] * ((tap_LS >= 0) & (tap_LS < width))
        return band_HLS[None] if mask.padding is None else band_HLS * mask.padding[:, None, None, :]


def _members(real_BS: Tensor, landmarks: int) -> Tensor:
    """Which tokens each landmark is the mean of, (B, R, S): real ones alone, in order, in equal parts."""
    rank_BS = real_BS.cumsum(-1) - 1
    part_BS = rank_BS * landmarks // real_BS.sum(-1, keepdim=True).clamp(min=1)
    part_R1 = torch.arange(landmarks, device=real_BS.device)[:, None]
    return (part_BS[:, None] == part_R1) & real_BS[:, None]


def pseudo_inverse(x: Tensor) -> Tensor:
    """The paper's iteration, for matrices whose rows sum to one, in float32 or better: half floats never get there."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    z = x.mT / x.sum(-2).amax(-1)[..., None, None]
    one = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    with full_precision(x):
        for _ in range(STEPS):
            xz = x @ z
            z = z @ (13.0 * one - xz @ (15.0 * one - xz @ (7.0 * one - xz))) / 4.0
    return z
