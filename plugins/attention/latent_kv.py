"""Multi-head latent attention: keys and values of all heads are read off one short vector a token, which is all that a
decoder keeps.

Shapes: B batch, L length, D dim, H heads, S source length, K dim of one head, R rank of the latent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import AttentionMixer, AttentionShape, Caps, Choice, Cost, FusedSoftmax, Mask, Mixed

State = tuple[()] | tuple[Tensor]
"""Nothing, or the latents (B, S, R) of all tokens so far."""


@dataclass(frozen=True, kw_only=True)
class LatentKV(AttentionMixer):
    """Softmax attention whose keys and values come from an RMS-normalised latent of `share` times D dims. It has no
    positions of its own: the paper's rotated part is left out. Decoding never expands keys or values."""

    name: ClassVar[str] = "latent_kv"
    source: ClassVar[str] = "arXiv:2405.04434"
    caps: ClassVar[Caps] = Caps(
        modes=frozenset({"bidirectional", "causal"}),
        masks=frozenset({"padding", "causal", "window", "bias", "dense"}),
        weights="exact",
        decoding="state",
        normalized=True,
        position_free=True,
        onnx=True,
    )

    share: Annotated[float, Choice(0.125, 0.25, 0.5)] = 0.25

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make projections and norm."""
        return _LatentKV(shape, self._rank(shape))

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Dense softmax attention, and the projections that other variants leave to the host."""
        pairs = super().cost(shape, length)
        projections = length * shape.dim * (4.0 * shape.dim + 6.0 * self._rank(shape))
        return pairs._replace(flops=pairs.flops + projections)

    def _rank(self, shape: AttentionShape) -> int:
        return max(1, int(self.share * shape.dim))


class _LatentKV(nn.Module):
    def __init__(self, shape: AttentionShape, rank: int) -> None:
        super().__init__()
        self.heads, self.head_dim, self.rank = shape.heads, shape.head_dim, rank
        self.to_q = nn.Linear(shape.dim, shape.dim, bias=False)
        self.to_latent = nn.Linear(shape.dim, rank, bias=False)
        self.norm = nn.RMSNorm(rank, eps=1e-6)
        self.to_kv = nn.Linear(rank, 2 * shape.dim, bias=False)
        self.to_out = nn.Linear(shape.dim, shape.dim)
        self.softmax = FusedSoftmax()

    def forward(
        self, x_BLD: Tensor, mask: Mask, state: State | None = None, *, weights: bool = False
    ) -> tuple[Mixed, State | None]:
        q_BHLK = self.to_q(x_BLD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        latent_BSR = self.norm(self.to_latent(x_BLD))
        if state:
            latent_BSR = torch.cat((state[0], latent_BSR), 1)
        mix = self._absorbed if state else self._expanded
        mixed = mix(q_BHLK, latent_BSR, mask, weights)
        out_BLD = self.to_out(mixed.out.transpose(1, 2).flatten(2))
        return mixed._replace(out=out_BLD), None if state is None else (latent_BSR,)

    def _expanded(self, q_BHLK: Tensor, latent_BSR: Tensor, mask: Mask, weights: bool) -> Mixed:
        k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in self.to_kv(latent_BSR).chunk(2, -1))
        mixed: Mixed = self.softmax(q_BHLK, k, v, mask, weights=weights)
        return mixed

    def _absorbed(self, q_BHLK: Tensor, latent_BSR: Tensor, mask: Mask, weights: bool) -> Mixed:
        """The same with queries brought to the latent, which is then the one head of keys and of values: for few
        queries that is less work than expanding every key."""
        to_k_HKR, to_v_HKR = self.to_kv.weight.unflatten(0, (2, self.heads, self.head_dim))
        # the kernel divides by the root of R, and the root of K is meant
        q_BHLR = q_BHLK @ to_k_HKR * math.sqrt(self.rank / self.head_dim)
        latent_B1SR = latent_BSR[:, None]
        mixed: Mixed = self.softmax(q_BHLR, latent_B1SR, latent_B1SR, mask, weights=weights)
        return mixed._replace(out=mixed.out @ to_v_HKR.transpose(-1, -2))
