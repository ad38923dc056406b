"""Reformer: tokens that random rotations hash into the same bucket look at each other.

Shapes: B batch, L length, D dim, H heads, K dim of one head, R rounds of hashing, A axes (two buckets each),
S places of tokens that are sorted by bucket, N chunks of them, C tokens of one chunk, W tokens that one chunk reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmine_auto import AttentionMixer, AttentionShape, Caps, Choice, Cost, DenseAttention, Int, Mask, Mixed

ALONE = -6e4
"""The score of a token with itself: below every other one, so that it counts only where there is no other. float16 has
it, and no number below -65504."""


@dataclass(frozen=True, kw_only=True)
class Reformer(AttentionMixer):
    """Softmax over the `chunk` nearest tokens of the own bucket to each side, in `rounds` of hashing together, where
    one projection is query and, at length one, key. A token sees itself only where it sees no other. The paper's chunks
    end at every so many sorted tokens, wherever a bucket began, and so tell the past how many tokens come; here nothing
    does. A row of up to `chunk` tokens is one bucket; where attention is causal, each of the first `chunk` tokens sees
    all before it, however many follow. Rotations follow from the seed and the layer."""

    name: ClassVar[str] = "reformer"
    source: ClassVar[str] = "arXiv:2001.04451"
    caps: ClassVar[Caps] = Caps(
        modes=frozenset({"bidirectional", "causal"}),
        masks=frozenset({"padding", "causal"}),
        weights="exact",
        normalized=True,
        saves=True,
        scaling=1.0,
    )

    rounds: Annotated[int, Int(1, 8)] = 2
    buckets: Annotated[int, Choice(4, 8, 16, 32)] = 16
    chunk: Annotated[int, Choice(16, 32, 64)] = 32
    seed: int = 0

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make rotations, which are not learned, and projections."""
        return _Reformer(shape, self)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """In each round all axes, and softmax over the chunks that are read, with copies of them; three projections."""
        chunks = 2.0 if shape.mode == "causal" else 3.0
        read = chunks * self.chunk * self.rounds
        flops = length * shape.dim * (4.0 * read + self.rounds * self.buckets + 6.0 * shape.dim)
        copies = self.rounds * shape.dim * (2.0 * chunks + 4.0)
        return Cost(flops=flops, peak_bytes=4.0 * length * (2.0 * read * shape.heads + copies))


class _Reformer(nn.Module):
    def __init__(self, shape: AttentionShape, chosen: Reformer) -> None:
        super().__init__()
        self.heads, self.chunk = shape.heads, chosen.chunk
        self.to_qv = nn.Linear(shape.dim, 2 * shape.dim, bias=False)
        self.to_out = nn.Linear(shape.dim, shape.dim)
        self.whole = _SharedSoftmax()
        rng = torch.Generator().manual_seed(chosen.seed + shape.layer)
        turns_HRKA = torch.randn(shape.heads, chosen.rounds, shape.head_dim, chosen.buckets // 2, generator=rng)
        self.register_buffer("turns_HRKA", turns_HRKA)

    def forward(self, x_BLD: Tensor, mask: Mask, state: None = None, *, weights: bool = False) -> tuple[Mixed, None]:
        q_BHLK, v_BHLK = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in self.to_qv(x_BLD).chunk(2, -1))
        k_BHLK = F.rms_norm(q_BHLK, q_BHLK.shape[-1:], eps=1e-6) * q_BHLK.shape[-1] ** -0.5
        mixed = self._mixed(q_BHLK, k_BHLK, v_BHLK, mask, weights)
        return mixed._replace(out=self.to_out(mixed.out.transpose(1, 2).flatten(2))), state

    def _mixed(self, q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor, mask: Mask, weights: bool) -> Mixed:
        longer = q_BHLK.shape[2] > self.chunk
        if longer and not mask.causal:
            return self._by_buckets(q_BHLK, k_BHLK, v_BHLK, mask, weights=weights)
        padding_BC = None if mask.padding is None else mask.padding[:, : self.chunk]
        q_k_v = (each[:, :, : self.chunk] for each in (q_BHLK, k_BHLK, v_BHLK))
        first: Mixed = self.whole(*q_k_v, Mask(padding=padding_BC, causal=mask.causal), weights=weights)
        if not longer:
            return first
        return self._followed(first, self._by_buckets(q_BHLK, k_BHLK, v_BHLK, mask, weights=weights))

    def _followed(self, first: Mixed, every: Mixed) -> Mixed:
        """The first tokens, which see all before them, and the others as they are among all."""
        out_BHLK = torch.cat((first.out, every.out[:, :, self.chunk :]), 2)
        if first.weights is None or every.weights is None:
            return Mixed(out_BHLK)
        wide_BHCL = F.pad(first.weights, (0, every.weights.shape[-1] - self.chunk))
        return Mixed(out_BHLK, torch.cat((wide_BHCL, every.weights[:, :, self.chunk :]), 2))

    def _by_buckets(self, q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor, mask: Mask, *, weights: bool) -> Mixed:
        sorting = _Sorting(self.buckets(q_BHLK, mask), self.chunk, mask.causal)
        q_BHRNCK, k_BHRNKW, v_BHRNKW = sorting.chunks(q_BHLK), sorting.read(k_BHLK), sorting.read(v_BHLK)
        away_CW, keep_BHRNCW = sorting.visible()
        scores_BHRNCW = (q_BHRNCK @ k_BHRNKW).masked_fill(away_CW == 0, ALONE)
        # what sees nothing, padding, is scored as if all were visible, and then set to zero
        lost_BHRNC1 = ~keep_BHRNCW.any(-1, keepdim=True)
        scores_BHRNCW = scores_BHRNCW.masked_fill(~(keep_BHRNCW | lost_BHRNC1), -torch.inf)
        total_BHRNC1 = scores_BHRNCW.logsumexp(-1, keepdim=True)
        share_BHRL1 = sorting.back(total_BHRNC1).softmax(2)
        weights_BHRNCW = (scores_BHRNCW - total_BHRNC1).exp().masked_fill(lost_BHRNC1, 0.0)
        out_BHLK = (sorting.back(weights_BHRNCW @ v_BHRNKW.mT) * share_BHRL1).sum(2)
        return Mixed(out_BHLK, (sorting.spread(weights_BHRNCW) * share_BHRL1).sum(2) if weights else None)

    @torch.no_grad()
    def buckets(self, q_BHLK: Tensor, mask: Mask) -> Tensor:
        """The bucket of each token in each round, (B, H, R, L): the end of an axis that it points to most, or the one
        bucket of a short row. Padding has none, -1."""
        ends_BHRLA = q_BHLK[:, :, None] @ self.get_buffer("turns_HRKA")
        bucket_BHRL = torch.cat((ends_BHRLA, -ends_BHRLA), -1).argmax(-1)
        if mask.padding is None:
            return bucket_BHRL
        if not mask.causal:  # in a causal row the number of tokens is told by those that come later
            short_B = mask.padding.sum(-1) <= self.chunk
            bucket_BHRL = bucket_BHRL.masked_fill(short_B[:, None, None, None], 0)
        return bucket_BHRL.masked_fill(~mask.padding[:, None, None], -1)


class _SharedSoftmax(DenseAttention):
    """Softmax over all other tokens."""

    def score(self, q_BHLK: Tensor, k_BHSK: Tensor) -> Tensor:
        self_LL = torch.eye(q_BHLK.shape[2], dtype=torch.bool, device=q_BHLK.device)
        return (q_BHLK @ k_BHSK.mT).masked_fill(self_LL, ALONE)


class _Sorting:
    """Tokens in the order of their buckets, and of their places within one, in chunks. A chunk reads itself, the one
    before and, unless attention is causal, the one after it."""

    def __init__(self, bucket_BHRL: Tensor, chunk: int, causal: bool) -> None:
        self.chunk, self.causal, self.length = chunk, causal, bucket_BHRL.shape[-1]
        self.bucket_BHRS, self.token_BHRS = bucket_BHRL.sort(dim=-1, stable=True)
        self.rest = -self.length % chunk

    def chunks(self, x_BHLK: Tensor) -> Tensor:
        """Sort and cut, (B, H, R, N, C, K), with zeros behind."""
        x_BHRSK = F.pad(self._sorted(x_BHLK), (0, 0, 0, self.rest))
        x_BHRNCK: Tensor = x_BHRSK.unflatten(3, (-1, self.chunk))
        return x_BHRNCK

    def read(self, x_BHLK: Tensor) -> Tensor:
        """What each chunk reads, (B, H, R, N, K, W), with zeros around."""
        return self._around(self._sorted(x_BHLK).mT).transpose(3, 4)

    def visible(self) -> tuple[Tensor, Tensor]:
        """How far behind each token of a chunk stands what the chunk reads, (C, W), and whether the token sees it."""
        bucket_BHRNC1 = F.pad(self.bucket_BHRS, (0, self.rest), value=-1).unflatten(3, (-1, self.chunk))[..., None]
        bucket_BHRN1W = self._around(self.bucket_BHRS, -1)[..., None, :]
        place_C1 = torch.arange(self.chunk, device=self.token_BHRS.device)[:, None]
        away_CW = torch.arange(-self.chunk, bucket_BHRN1W.shape[-1] - self.chunk, device=place_C1.device) - place_C1
        near_CW = (away_CW >= -self.chunk) & (away_CW <= (0 if self.causal else self.chunk))
        return away_CW, near_CW & (bucket_BHRNC1 == bucket_BHRN1W) & (bucket_BHRN1W >= 0)

    def back(self, x_BHRNCK: Tensor) -> Tensor:
        """Bring what chunks found back into the order of tokens, (B, H, R, L, K)."""
        place_BHRL = self.token_BHRS.argsort(-1)
        x_BHRSK = x_BHRNCK.flatten(3, 4)
        return x_BHRSK.gather(3, place_BHRL[..., None].expand(*place_BHRL.shape, x_BHRSK.shape[-1]))

    def spread(self, weights_BHRNCW: Tensor) -> Tensor:
        """Bring weights of what was read to the tokens that they are for, (B, H, R, L, L)."""
        token_BHRN1W = self._around(self.token_BHRS)[..., None, :]
        none_BHRNCL = weights_BHRNCW.new_zeros(*weights_BHRNCW.shape[:-1], self.length)
        return self.back(none_BHRNCL.scatter_add(-1, token_BHRN1W.expand_as(weights_BHRNCW), weights_BHRNCW))

    def _around(self, x_S: Tensor, empty: int = 0) -> Tensor:
        """The windows of the last dim that the chunks read, with what stands for no token around."""
        after = 0 if self.causal else self.chunk
        return F.pad(x_S, (self.chunk, self.rest + after), value=empty).unfold(-1, 2 * self.chunk + after, self.chunk)

    def _sorted(self, x_BHLK: Tensor) -> Tensor:
        index_BHRSK = self.token_BHRS[..., None].expand(*self.token_BHRS.shape, x_BHLK.shape[-1])
        return x_BHLK[:, :, None].expand_as(index_BHRSK).gather(3, index_BHRSK)
