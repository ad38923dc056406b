"""Gated linear attention: a running sum of keys times values, of which each key dim forgets as much as the token says.

Shapes: B batch, L length, D dim, H heads, K key dim of one head, V value dim of one head, N chunks, C tokens of one
chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmine_auto import AttentionMixer, AttentionShape, Caps, Choice, Cost, Int, Mask, Mixed

CHUNK = 64
RANK = 16
"""Of the gate's projection, as in the paper."""

State = tuple[()] | tuple[Tensor]
"""Nothing, or the sum (B, H, K, V) over all tokens so far."""


@dataclass(frozen=True, kw_only=True)
class GatedLinear(AttentionMixer):
    """S = gate S + k v, out = q S, with a gate in (0, 1) for each key dim; then an RMS norm of each head and an output
    gate. Keys have `expand_k` times a head's dims. A gate is the `smoothing`-th root of a sigmoid, so that it starts
    near one. Time and memory grow with L, and a decoder keeps one matrix a head."""

    name: ClassVar[str] = "gated_linear"
    source: ClassVar[str] = "arXiv:2312.06635"
    caps: ClassVar[Caps] = Caps(
        modes=frozenset({"causal"}), masks=frozenset({"padding", "causal"}), decoding="state", scaling=1.0
    )

    expand_k: Annotated[float, Choice(0.5, 1.0)] = 0.5
    smoothing: Annotated[int, Int(4, 64, log=True)] = 16

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make projections, gates and norm."""
        return _GatedLinear(shape, max(1, int(self.expand_k * shape.head_dim)), self.smoothing)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Products within a chunk and with each head's sum, and the projections that other variants leave to the
        host."""
        seen = min(length, CHUNK)
        mixing = 2.0 * (1.0 + self.expand_k) * length * shape.dim * (seen + shape.head_dim)
        projections = (6.0 + 4.0 * self.expand_k) * length * shape.dim**2
        return Cost(flops=mixing + projections, peak_bytes=32.0 * length * shape.dim)


class _GatedLinear(nn.Module):
    def __init__(self, shape: AttentionShape, key_dim: int, smoothing: int) -> None:
        super().__init__()
        self.heads, self.smoothing = shape.heads, smoothing
        keys = shape.heads * key_dim
        self.split = (keys, keys, shape.dim)
        self.to_qkv = nn.Linear(shape.dim, sum(self.split), bias=False)
        self.to_forget = nn.Sequential(nn.Linear(shape.dim, RANK, bias=False), nn.Linear(RANK, keys))
        self.to_gate = nn.Linear(shape.dim, shape.dim, bias=False)
        self.norm = nn.RMSNorm(shape.head_dim, eps=1e-5)
        self.to_out = nn.Linear(shape.dim, shape.dim, bias=False)

    def forward(
        self, x_BLD: Tensor, mask: Mask, state: State | None = None, *, weights: bool = False
    ) -> tuple[Mixed, State | None]:
        parts = (*self.to_qkv(x_BLD).split(self.split, -1), F.logsigmoid(self.to_forget(x_BLD)) / self.smoothing)
        q, k, v, forget = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in parts)
        if mask.padding is not None:  # a padded token adds nothing and forgets nothing
            real = mask.padding[:, None, -x_BLD.shape[1] :, None]
            k, forget = k * real, forget * real
        past_BHKV = state[0] if state else v.new_zeros((*v.shape[:2], k.shape[-1], v.shape[-1]))
        out_BHLV, past_BHKV = gated_sums(q * q.shape[-1] ** -0.5, k, v, forget, past_BHKV)
        out_BLD = self.norm(out_BHLV).transpose(1, 2).flatten(2) * F.silu(self.to_gate(x_BLD))
        return Mixed(self.to_out(out_BLD)), None if state is None else (past_BHKV,)


def gated_sums(q: Tensor, k: Tensor, v: Tensor, forget: Tensor, past_BHKV: Tensor) -> tuple[Tensor, Tensor]:
    """Return q S of each token and the last S, going on from `past`. `forget` is the log of the gates (B, H, L, K).

    Gates are summed from the start of a chunk and enter as differences from the earlier to the later token alone, so
    that no exponential exceeds one, however much is forgotten.
    """
    length = q.shape[2]
    chunk = min(CHUNK, 1 << (length - 1).bit_length())
    # padding goes behind, where zeros add nothing and forget nothing
    q, k, v, forget = (F.pad(x, (0, 0, 0, -length % chunk)).unflatten(2, (-1, chunk)) for x in (q, k, v, forget))
    exact = torch.promote_types(forget.dtype, torch.float32)  # half floats would round sums of many gates
    total = forget.cumsum(-2, dtype=exact)
    last = total[..., -1:, :]
    far_q = q * total.exp()
    added = (k * (last - total).exp()).transpose(-1, -2) @ v
    kept = last.exp().transpose(-1, -2)
    far = []
    for n in range(q.shape[2]):
        far.append(far_q[:, :, n] @ past_BHKV)
        past_BHKV = past_BHKV * kept[:, :, n] + added[:, :, n]
    out = _within(q, k, v, total) + torch.stack(far, 2)
    return out.flatten(2, 3)[:, :, :length], past_BHKV


def _within(q: Tensor, k: Tensor, v: Tensor, total: Tensor) -> Tensor:
    """What tokens of a chunk see of each other: each itself, then, at every scale, the second half of a block the first
    half, with gates counted from the edge between them."""
    out = (q * k).sum(-1, keepdim=True) * v
    half = 1
    while half < q.shape[-2]:
        (_, q2), (k1, _), (v1, _), (total1, total2) = (
            x.unflatten(-2, (-1, 2, half)).unbind(-3) for x in (q, k, v, total)
        )
        edge = total1[..., -1:, :]
        scores = (q2 * (total2 - edge).exp()) @ (k1 * (edge - total1).exp()).transpose(-1, -2)
        seen = scores @ v1
        out = out + torch.stack((torch.zeros_like(seen), seen), -3).flatten(-4, -2)
        half *= 2
    return out
