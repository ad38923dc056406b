"""Gated DeltaNet: a memory that, before it writes a value under a key, takes out what it holds there.

Shapes: B batch, L length, D dim, H heads, K dim of one head, N chunks, C tokens of one chunk, E = 3 D, T tokens that
the convolution looks back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmine_auto import AttentionMixer, AttentionShape, Caps, Choice, Cost, Mask, Mixed

CHUNK = 64

State = tuple[()] | tuple[Tensor, Tensor]
"""Nothing, or the last inputs (B, T, E) of the convolution and the memory (B, H, K, K)."""


@dataclass(frozen=True, kw_only=True)
class GatedDelta(AttentionMixer):
    """M = decay M, then M = M + beta k (v - k M), out = q M, with a decay and a beta for each token and head; then an
    RMS norm of each head and an output gate. Queries and keys have length one. `convolution` is how many tokens a short
    convolution before it sees (0: none); `beta` up to 2 lets a write turn the sign of what was there. Time and memory
    grow with L, and a decoder keeps one matrix a head."""

    name: ClassVar[str] = "gated_delta"
    source: ClassVar[str] = "arXiv:2412.06464"
    caps: ClassVar[Caps] = Caps(
        modes=frozenset({"causal"}), masks=frozenset({"padding", "causal"}), decoding="state", scaling=1.0
    )

    convolution: Annotated[int, Choice(0, 4)] = 4
    beta: Annotated[float, Choice(1.0, 2.0)] = 1.0

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make projections, convolution, gates and norm."""
        return _GatedDelta(shape, self.convolution, self.beta)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Products within a chunk and with each head's memory, and the projections that other variants leave to the
        host."""
        seen = min(length, CHUNK)
        mixing = length * shape.dim * (10.0 * seen + 8.0 * shape.head_dim)
        projections = 10.0 * length * shape.dim**2
        return Cost(flops=mixing + projections, peak_bytes=4.0 * length * (10 * shape.dim + 3 * seen * shape.heads))


class _GatedDelta(nn.Module):
    def __init__(self, shape: AttentionShape, convolution: int, beta: float) -> None:
        super().__init__()
        self.heads, self.beta = shape.heads, beta
        self.to_qkv = nn.Linear(shape.dim, 3 * shape.dim, bias=False)
        self.recent = _Recent(3 * shape.dim, convolution) if convolution else None
        self.to_beta = nn.Linear(shape.dim, shape.heads, bias=False)
        self.decay = _Decay(shape)
        self.to_gate = nn.Linear(shape.dim, shape.dim, bias=False)
        self.norm = nn.RMSNorm(shape.head_dim, eps=1e-6)
        self.to_out = nn.Linear(shape.dim, shape.dim, bias=False)

    def forward(
        self, x_BLD: Tensor, mask: Mask, state: State | None = None, *, weights: bool = False
    ) -> tuple[Mixed, State | None]:
        qkv_BLE, beta_BLH, decay_BLH = self.to_qkv(x_BLD), self.beta * self.to_beta(x_BLD).sigmoid(), self.decay(x_BLD)
        if mask.padding is not None:  # a padded token writes nothing and forgets nothing
            real = mask.padding[:, -x_BLD.shape[1] :, None]
            qkv_BLE, beta_BLH, decay_BLH = qkv_BLE * real, beta_BLH * real, decay_BLH * real
        before_BTE = state[0] if state else qkv_BLE[:, :0]
        if self.recent is not None:
            qkv_BLE, before_BTE = self.recent(qkv_BLE, before_BTE)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in F.silu(qkv_BLE).chunk(3, -1))
        memory_BHKK = state[1] if state else v.new_zeros((*v.shape[:2], v.shape[-1], v.shape[-1]))
        beta, decay = (x.transpose(1, 2)[..., None] for x in (beta_BLH, decay_BLH))
        out_BHLK, memory_BHKK = delta_rule(_unit(q) * q.shape[-1] ** -0.5, _unit(k), v, beta, decay, memory_BHKK)
        out_BLD = self.norm(out_BHLK).transpose(1, 2).flatten(2) * F.silu(self.to_gate(x_BLD))
        return Mixed(self.to_out(out_BLD)), None if state is None else (before_BTE, memory_BHKK)


class _Recent(nn.Module):
    """A causal convolution of each channel over the last tokens."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.back = width - 1
        self.convolution = nn.Conv1d(channels, channels, width, groups=channels, bias=False)

    def forward(self, x_BLE: Tensor, before_BTE: Tensor) -> tuple[Tensor, Tensor]:
        """Return what it makes of x, and the last inputs, zeros where there were none."""
        x_BLE = torch.cat((F.pad(before_BTE, (0, 0, self.back - before_BTE.shape[1], 0)), x_BLE), 1)
        return self.convolution(x_BLE.transpose(1, 2)).transpose(1, 2), x_BLE[:, x_BLE.shape[1] - self.back :]


class _Decay(nn.Module):
    """log decay = -rate softplus(step); rates and steps start as in Mamba, so that memory lasts from tokens to
    thousands of them."""

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()
        self.to_step = nn.Linear(shape.dim, shape.heads, bias=False)
        self.log_rate_H = nn.Parameter(torch.empty(shape.heads).uniform_(1.0, 16.0).log())
        step_H = torch.empty(shape.heads).uniform_(math.log(1e-3), math.log(0.1)).exp()
        self.step_H = nn.Parameter(torch.log(torch.expm1(step_H)))

    def forward(self, x_BLD: Tensor) -> Tensor:
        return -self.log_rate_H.exp() * F.softplus(self.to_step(x_BLD) + self.step_H)


def _unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, decay: Tensor, memory_BHKK: Tensor
) -> tuple[Tensor, Tensor]:
    """Return q M of each token and the last M, going on from `memory`; beta and log decay are (B, H, L, 1).

    What the tokens of a chunk write depends on what those before them wrote: a triangular system, solved once for all
    chunks, first as if memory were empty (`written`), then for what must be taken from it (`taken`).
    """
    length = q.shape[2]
    chunk = min(CHUNK, length)
    # padding goes behind, where nothing is written and nothing forgotten
    q, k, v, beta, decay = (
        F.pad(x, (0, 0, 0, -length % chunk)).unflatten(2, (-1, chunk)) for x in (q, k, v, beta, decay)
    )
    total = decay.cumsum(-2)
    later_CC = torch.ones(chunk, chunk, dtype=torch.bool, device=q.device).triu(1)
    fading = (total - total.transpose(-1, -2)).masked_fill(later_CC, -torch.inf).exp()
    system = (beta * k) @ k.transpose(-1, -2) * fading
    both = torch.cat((beta * v, beta * k * total.exp()), -1)
    written, taken = torch.linalg.solve_triangular(system, both, upper=False, unitriangular=True).chunk(2, -1)
    near, far_q = q @ k.transpose(-1, -2) * fading, q * total.exp()
    last = total[..., -1:, :]
    far_k = (k * (last - total).exp()).transpose(-1, -2)
    found = []
    for n in range(q.shape[2]):
        new = written[:, :, n] - taken[:, :, n] @ memory_BHKK
        found.append(far_q[:, :, n] @ memory_BHKK + near[:, :, n] @ new)
        memory_BHKK = memory_BHKK * last[:, :, n].exp() + far_k[:, :, n] @ new
    return torch.cat(found, 2)[:, :, :length], memory_BHKK
