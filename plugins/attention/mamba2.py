"""Mamba-2: a state space whose decay and step are read off each token, computed as attention within chunks.

Shapes: B batch, L length, D dim, I inner dim, H heads, P inner dim of one head, N dim of the state, E = I + 2 N,
C tokens of one chunk, T tokens that the convolution looks back.
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
WIDTH = 4
"""Of the convolution, as in the paper."""

State = tuple[()] | tuple[Tensor, Tensor]
"""Nothing, or the last inputs (B, T, E) of the convolution and the state (B, H, N, P)."""


@dataclass(frozen=True, kw_only=True)
class Mamba2(AttentionMixer):
    """S = exp(-rate step) S + step b x, out = c S + skip x, with a step for each token and head, and b and c that all
    heads share; before it a convolution over four tokens, after it a gate and an RMS norm. x has `expand` times D dims,
    so that with 2 the layer has half as many parameters again as attention. Time and memory grow with L, and a decoder
    keeps one matrix a head."""

    name: ClassVar[str] = "mamba2"
    source: ClassVar[str] = "arXiv:2405.21060"
    caps: ClassVar[Caps] = Caps(
        modes=frozenset({"causal"}), masks=frozenset({"padding", "causal"}), decoding="state", scaling=1.0
    )

    state: Annotated[int, Choice(16, 32, 64, 128)] = 64
    expand: Annotated[int, Choice(1, 2)] = 2

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make projections, convolution, steps and norm."""
        return _Mamba2(shape, self.state, self.expand * shape.dim)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Products within a chunk and with each head's state, and the projections that other variants leave to the
        host."""
        seen, inner = min(length, CHUNK), self.expand * shape.dim
        mixing = length * (2.0 * seen * (self.state + inner) + 4.0 * self.state * inner)
        projections = 2.0 * length * shape.dim * (3 * inner + 2 * self.state)
        numbers = length * (6 * inner + shape.heads * (3 * seen + 2 * self.state))
        return Cost(flops=mixing + projections, peak_bytes=4.0 * numbers)


class _Mamba2(nn.Module):
    def __init__(self, shape: AttentionShape, state: int, inner: int) -> None:
        super().__init__()
        self.heads, self.inner, self.state = shape.heads, inner, state
        self.split = (inner, inner + 2 * state, shape.heads)
        self.to_parts = nn.Linear(shape.dim, sum(self.split), bias=False)
        self.convolution = nn.Conv1d(self.split[1], self.split[1], WIDTH, groups=self.split[1])
        # rates and steps start so that a memory lasts from tokens to thousands of them
        self.log_rate_H = nn.Parameter(torch.empty(shape.heads).uniform_(1.0, 16.0).log())
        step_H = torch.empty(shape.heads).uniform_(math.log(1e-3), math.log(0.1)).exp()
        self.step_H = nn.Parameter(torch.log(torch.expm1(step_H)))
        self.skip_H = nn.Parameter(torch.ones(shape.heads))
        self.norm = nn.RMSNorm(inner, eps=1e-5)
        self.to_out = nn.Linear(inner, shape.dim, bias=False)

    def forward(
        self, x_BLD: Tensor, mask: Mask, state: State | None = None, *, weights: bool = False
    ) -> tuple[Mixed, State | None]:
        gate_BLI, mixed_BLE, step_BLH = self.to_parts(x_BLD).split(self.split, -1)
        step_BLH = F.softplus(step_BLH + self.step_H)
        if mask.padding is not None:  # a padded token writes nothing and forgets nothing
            real = mask.padding[:, -x_BLD.shape[1] :, None]
            mixed_BLE, step_BLH = mixed_BLE * real, step_BLH * real
        mixed_BLE, before_BTE = self._convolved(mixed_BLE, state[0] if state else mixed_BLE[:, :0])
        x_BLI, b_BLN, c_BLN = F.silu(mixed_BLE).split((self.inner, self.state, self.state), -1)
        x, step = x_BLI.unflatten(-1, (self.heads, -1)).transpose(1, 2), step_BLH.transpose(1, 2)[..., None]
        decay = -self.log_rate_H.exp()[:, None, None] * step
        past_BHNP = state[1] if state else x.new_zeros((*x.shape[:2], self.state, x.shape[-1]))
        out, past_BHNP = scanned(c_BLN[:, None], b_BLN[:, None], step * x, decay, past_BHNP)
        out_BLI = (out + self.skip_H[:, None, None] * x).transpose(1, 2).flatten(2)
        out_BLD = self.to_out(self.norm(out_BLI * F.silu(gate_BLI)))
        return Mixed(out_BLD), None if state is None else (before_BTE, past_BHNP)

    def _convolved(self, x_BLE: Tensor, before_BTE: Tensor) -> tuple[Tensor, Tensor]:
        """Each channel over the last tokens, zeros where there were none; and the last inputs."""
        x_BLE = torch.cat((F.pad(before_BTE, (0, 0, WIDTH - 1 - before_BTE.shape[1], 0)), x_BLE), 1)
        return self.convolution(x_BLE.transpose(1, 2)).transpose(1, 2), x_BLE[:, 1 - WIDTH :]


def scanned(c: Tensor, b: Tensor, x: Tensor, decay: Tensor, past_BHNP: Tensor) -> tuple[Tensor, Tensor]:
    """Return c S of each token and the last S, going on from `past`, with S = exp(decay) S + b x. Decay is
    (B, H, L, 1); decays are summed within a chunk alone, and no exponential exceeds one."""
    length = x.shape[2]
    chunk = min(CHUNK, length)
    # padding goes behind, where nothing is written and nothing forgotten
    c, b, x, decay = (F.pad(each, (0, 0, 0, -length % chunk)).unflatten(2, (-1, chunk)) for each in (c, b, x, decay))
    total = decay.cumsum(-2)
    later_CC = torch.ones(chunk, chunk, dtype=torch.bool, device=x.device).triu(1)
    fading = (total - total.transpose(-1, -2)).masked_fill(later_CC, -torch.inf).exp()
    near = (c @ b.transpose(-1, -2) * fading) @ x
    last = total[..., -1:, :]
    added = b.transpose(-1, -2) @ (x * (last - total).exp())
    far = []
    for n in range(x.shape[2]):
        far.append(c[:, :, n] @ past_BHNP)
        past_BHNP = past_BHNP * last[:, :, n].exp() + added[:, :, n]
    out = near + total.exp() * torch.stack(far, 2)
    return out.flatten(2, 3)[:, :, :length], past_BHNP
