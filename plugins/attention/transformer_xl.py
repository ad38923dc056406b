"""Transformer-XL: a text is read segment by segment, and each segment also sees the one before it, as it stood.

Shapes: B batch, L length, D dim, H heads, S tokens that are seen, K dim of one head, N segments, C tokens of one
segment, J keys that a segment sees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmine_auto import AttentionMixer, AttentionShape, Caps, Choice, Cost, DenseAttention, Mask, Mixed

State = tuple[()] | tuple[Tensor]
"""Nothing, or what the layer read (B, S, D) from the start of the last full segment on."""


@dataclass(frozen=True, kw_only=True)
class TransformerXL(AttentionMixer):
    """Causal softmax attention by content and distance, within a segment and to the segment before it, into whose
    tokens no gradient flows. On inputs of up to `segment` tokens it is plain relative attention. Time and memory grow
    with L. A layer sees at most two segments, and a stack of n layers n + 1."""

    name: ClassVar[str] = "transformer_xl"
    source: ClassVar[str] = "arXiv:1901.02860"
    caps: ClassVar[Caps] = Caps(
        modes=frozenset({"causal"}),
        masks=frozenset({"padding", "causal"}),
        weights="exact",
        decoding="state",
        normalized=True,
        scaling=1.0,
    )

    segment: Annotated[int, Choice(32, 64, 128)] = 64

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make projections, and the two biases of each head."""
        return _Segments(shape, self.segment)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Three products with the keys that a segment sees, and projections, of keys and values twice."""
        seen = min(length, 2 * self.segment)
        pairs, projections = 6.0 * length * seen * shape.dim, 12.0 * length * shape.dim**2
        return Cost(flops=pairs + projections, peak_bytes=12.0 * length * (seen * shape.heads + shape.dim))


class _Segments(nn.Module):
    def __init__(self, shape: AttentionShape, segment: int) -> None:
        super().__init__()
        self.heads, self.segment = shape.heads, segment
        self.to_q = nn.Linear(shape.dim, shape.dim, bias=False)
        self.to_kv = nn.Linear(shape.dim, 2 * shape.dim, bias=False)
        self.relative = _Relative(shape)
        self.to_out = nn.Linear(shape.dim, shape.dim)

    def forward(
        self, x_BLD: Tensor, mask: Mask, state: State | None = None, *, weights: bool = False
    ) -> tuple[Mixed, State | None]:
        seen_BSD = torch.cat((state[0], x_BLD), 1) if state else x_BLD
        source, length = seen_BSD.shape[1], x_BLD.shape[1]
        mixed = self._mix(seen_BSD, mask, length, weights)
        kept_BSD = seen_BSD[:, max(0, source // self.segment - 1) * self.segment :]
        return mixed._replace(out=self.to_out(mixed.out)), None if state is None else (kept_BSD,)

    def _mix(self, x_BSD: Tensor, mask: Mask, length: int, weights: bool) -> Mixed:
        """Mix segments as if they were rows, and return the last `length` tokens."""
        rows, source = x_BSD.shape[:2]
        size = min(self.segment, source)
        first = (source - length) // size  # segments before it hold no new token
        own, before = (each[:, first:] for each in _segments(x_BSD, size))
        keys = torch.cat((before.detach(), own), 2)
        keep = _visible(mask, x_BSD, size)[:, first:].flatten(0, 1)
        q, k, v = (
            each.flatten(0, 1).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for each in (self.to_q(own), *self.to_kv(keys).chunk(2, -1))
        )
        mixed: Mixed = self.relative(q, k, v, Mask(dense=keep), weights=weights)
        new = slice(source - length - first * size, source - first * size)
        out_BLD = mixed.out.transpose(1, 2).flatten(2).unflatten(0, (rows, -1)).flatten(1, 2)[:, new]
        if mixed.weights is None:
            return Mixed(out_BLD)
        return Mixed(out_BLD, _joined(mixed.weights.unflatten(0, (rows, -1)), first, source)[:, :, new])


class _Relative(DenseAttention):
    """Scores (q + u) k + (q + v) r, where r is read off the sinusoid of the distance, and u and v are learned. The last
    query stands at the last key."""

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()
        self.dim = shape.dim
        self.to_r = nn.Linear(shape.dim, shape.dim, bias=False)
        self.u_HK = nn.Parameter(torch.zeros(shape.heads, shape.head_dim))
        self.v_HK = nn.Parameter(torch.zeros(shape.heads, shape.head_dim))

    def score(self, q_BHLK: Tensor, k_BHSK: Tensor) -> Tensor:
        length, source = q_BHLK.shape[2], k_BHSK.shape[2]
        r_HSK = self.to_r(self._sinusoids(k_BHSK)).unflatten(-1, self.u_HK.shape).transpose(0, 1)
        by_content = (q_BHLK + self.u_HK[:, None]) @ k_BHSK.transpose(-1, -2)
        by_distance = (q_BHLK + self.v_HK[:, None]) @ r_HSK.transpose(-1, -2)
        at_S = torch.arange(source, device=q_BHLK.device)
        distance_LS = (at_S[source - length :, None] - at_S).clamp_min(0)  # what lies ahead is hidden
        scores = by_content + by_distance.gather(-1, distance_LS.expand_as(by_distance))
        scaled_BHLS: Tensor = scores * q_BHLK.shape[-1] ** -0.5
        return scaled_BHLS

    def _sinusoids(self, k_BHSK: Tensor) -> Tensor:
        """R (S, D) of the distances from zero on."""
        exact = torch.promote_types(k_BHSK.dtype, torch.float32)  # far positions need more digits than half floats have
        at_S = torch.arange(k_BHSK.shape[2], device=k_BHSK.device, dtype=exact)
        even = torch.arange(0, self.dim, 2, device=at_S.device, dtype=at_S.dtype)
        angles = at_S[:, None] * torch.exp(even * (-math.log(1e4) / self.dim))
        return torch.cat((angles.sin(), angles.cos()), -1)[:, : self.dim].to(k_BHSK.dtype)


def _segments(x_BSD: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The segments (B, N, C, D), and for each the one before it: zeros for the first, and nothing for an only one."""
    own = F.pad(x_BSD, (0, 0, 0, -x_BSD.shape[1] % size)).unflatten(1, (-1, size))
    return own, F.pad(own[:, :-1], (0, 0, 0, 0, 1, 0)) if own.shape[1] > 1 else own[:, :, :0]


def _visible(mask: Mask, x_BSD: Tensor, size: int) -> Tensor:
    """Which keys the queries of a segment may see (B, N, 1, C, J)."""
    real_BS = x_BSD.new_ones(x_BSD.shape[:2], dtype=torch.bool)
    if mask.padding is not None:
        real_BS = mask.padding[:, -x_BSD.shape[1] :]
    own, before = _segments(real_BS[..., None], size)
    real_BN11J = torch.cat((before, own), 2)[:, :, None, None, :, 0]
    causal_CJ = Mask(causal=True).allowed(size, real_BN11J.shape[-1], x_BSD.device)
    assert causal_CJ is not None
    return real_BN11J & causal_CJ


def _joined(weights_BNHCJ: Tensor, first: int, source: int) -> Tensor:
    """The weights of all segments from `first` on as one matrix, with S columns."""
    size, seen = weights_BNHCJ.shape[-2:]
    last = first + weights_BNHCJ.shape[1] - 1
    wide = [F.pad(each, (n * size, (last - n) * size)) for n, each in enumerate(weights_BNHCJ.unbind(1), first)]
    return torch.cat(wide, 2)[..., seen - size : seen - size + source]
