"""Retention: products of queries and keys that fade with distance, in place of softmax, so that one sum says the past.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head, V dim of one head and one
more, N chunks, C tokens of one chunk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmine_auto import AttentionCore, AttentionShape, Caps, Choice, Cost, Mask, Mixed, repeated

CHUNK = 64


@dataclass(frozen=True, kw_only=True)
class Retention(AttentionCore):
    """Weights q k times decay ^ distance, of either sign, scaled as in the paper: a row's sum stays between -1 and 1.
    The first head remembers about `span` tokens, each further head twice as many. Time and memory grow with L. Group
    norm and gate of the paper's layer are left out, so that every host can take it."""

    name: ClassVar[str] = "retention"
    source: ClassVar[str] = "arXiv:2307.08621"
    caps: ClassVar[Caps] = Caps(
        modes=frozenset({"causal"}),
        masks=frozenset({"padding", "causal"}),
        weights="exact",
        decoding="kv",
        scaling=1.0,
    )

    span: Annotated[int, Choice(8, 16, 32, 64)] = 32

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the module; it learns nothing."""
        return _Retention(shape.heads, self.span)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Products within a chunk, and two with the (K, K) sum of each head."""
        seen = min(length, CHUNK)
        return Cost(
            flops=4.0 * length * shape.dim * (seen + shape.head_dim),
            peak_bytes=4.0 * length * (4 * shape.dim + seen * shape.heads),
        )


class _Retention(nn.Module):
    def __init__(self, heads: int, span: int) -> None:
        super().__init__()
        self.log_decays = [math.log1p(-1.0 / (span * 2**head)) for head in range(heads)]

    def forward(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, *, weights: bool = False) -> Mixed:
        length, source = q_BHLK.shape[2], k_BGSK.shape[2]
        k_BHSK, v_BHSK = (repeated(x, q_BHLK.shape[1]) for x in (k_BGSK, v_BGSK))
        real_BS = q_BHLK.new_ones((1, source)) if mask.padding is None else mask.padding.to(q_BHLK.dtype)
        real_BHS1 = real_BS[:, None, :, None]
        q, k = q_BHLK * q_BHLK.shape[-1] ** -0.5, k_BHSK * real_BHS1
        v_BHSV = F.pad(v_BHSK, (0, 1), value=1.0)  # the last column sums the weights of a row
        decay_H = q.new_tensor(self.log_decays)
        if weights or length <= CHUNK:
            fading_HLS = _fading(decay_H, length, source)
            scores_BHLS = q @ k.transpose(-1, -2) * fading_HLS
            scale_BHL1 = _scale(scores_BHLS.sum(-1, keepdim=True), fading_HLS @ real_BHS1)
            weights_BHLS = scores_BHLS * scale_BHL1
            return Mixed(weights_BHLS @ v_BHSK, weights_BHLS if weights else None)
        sums_BHLV = _by_chunks(q, k, v_BHSV, decay_H)
        faded_BHL1 = _by_chunks(torch.ones_like(q[:1, :, :, :1]), real_BHS1, real_BHS1, decay_H)
        return Mixed(sums_BHLV[..., :-1] * _scale(sums_BHLV[..., -1:], faded_BHL1))


def _fading(decay_H: Tensor, length: int, source: int) -> Tensor:
    """decay ^ distance (H, L, S), and zero for keys that come later; the last query stands at the last key."""
    query_L = torch.arange(source - length, source, device=decay_H.device)
    distance_LS = query_L[:, None] - torch.arange(source, device=decay_H.device)
    fading_HLS = torch.exp(decay_H[:, None, None] * distance_LS.clamp_min(0))
    return fading_HLS * (distance_LS >= 0)


def _scale(total: Tensor, faded: Tensor) -> Tensor:
    """What the paper divides by: the root of a row's decays, then the row's own sum where that is beyond one."""
    root = faded.masked_fill(faded == 0.0, 1.0).rsqrt()  # a row that sees nothing is zero by itself
    return root / (total * root).abs().clamp_min(1.0)


def _by_chunks(q: Tensor, k: Tensor, v: Tensor, decay_H: Tensor) -> Tensor:
    """Within a chunk by the faded product, from earlier chunks by their faded sum; no power of a decay exceeds one."""
    length, longest = q.shape[-2], max(q.shape[-2], k.shape[-2])
    chunks = -(-longest // CHUNK)
    # padding goes in front, where zeros add nothing and the last query still stands at the last key
    q, k, v = (F.pad(x, (0, 0, chunks * CHUNK - x.shape[-2], 0)).unflatten(-2, (chunks, CHUNK)) for x in (q, k, v))
    near = (q @ k.transpose(-1, -2)) * _fading(decay_H, CHUNK, CHUNK)[:, None] @ v
    since_C1 = torch.arange(1, CHUNK + 1, device=q.device)[:, None]
    since_HNC1 = torch.exp(decay_H[:, None, None, None] * since_C1)
    until_HNC1 = torch.exp(decay_H[:, None, None, None] * (CHUNK - since_C1))
    sums = (k * until_HNC1).transpose(-1, -2) @ v
    far = (q * since_HNC1) @ _before(sums, torch.exp(CHUNK * decay_H)[:, None, None])
    out: Tensor = (near + far).flatten(-3, -2)[..., -length:, :]
    return out


def _before(sums_BHNKV: Tensor, decay: Tensor) -> Tensor:
    """The faded sum over earlier chunks, which the first has none of."""
    past = [torch.zeros_like(sums_BHNKV[:, :, 0])]
    for sums in sums_BHNKV.unbind(2)[:-1]:
        past.append(past[-1] * decay + sums)
    return torch.stack(past, 2)
