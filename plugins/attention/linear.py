"""Linear attention: a kernel of positive features in place of the exponential, so that keys and values are summed once
for all queries.

Shapes: B batch, H heads, G key-value heads, R query heads of one key-value head, L length, S source length,
K dim of one head, N chunks, C tokens of one chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from deepmine_auto import AttentionCore, AttentionShape, Caps, Cost, Mask, Mixed

CHUNK = 128


@dataclass(frozen=True, kw_only=True)
class Linear(AttentionCore):
    """Weights phi(q) phi(k) / sum, with phi = elu + 1. Time and memory grow with L; causal attention is computed by
    chunks, exactly. Outputs are convex mixtures of the values."""

    name: ClassVar[str] = "linear"
    source: ClassVar[str] = "arXiv:2006.16236"
    caps: ClassVar[Caps] = Caps(
        modes=frozenset({"bidirectional", "causal", "cross"}),
        masks=frozenset({"padding", "causal"}),
        weights="exact",
        decoding="kv",
        normalized=True,
        position_free=True,
        scaling=1.0,
    )

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the module; it learns nothing."""
        return _Linear()

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Two products with the (K, K) sum of each head."""
        return Cost(flops=4.0 * length * shape.dim * shape.head_dim, peak_bytes=12.0 * length * shape.dim)


class _Linear(nn.Module):
    def forward(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, *, weights: bool = False) -> Mixed:
        phi_q_BGRLK = _features(q_BHLK).unflatten(1, (k_BGSK.shape[1], -1))
        phi_k_BGSK = _features(k_BGSK)
        if mask.padding is not None:
            phi_k_BGSK = phi_k_BGSK * mask.padding[:, None, :, None]
        phi_k, v = phi_k_BGSK[:, :, None], v_BGSK[:, :, None]
        if weights:
            return _by_definition(phi_q_BGRLK, phi_k, v, mask)
        mix = _mix_causal if mask.causal else _mix
        return Mixed(mix(phi_q_BGRLK, phi_k, v).flatten(1, 2))


def _features(x: Tensor) -> Tensor:
    return F.elu(x) + 1.0


def _divided(x: Tensor, total: Tensor) -> Tensor:
    # where a query sees nothing, x and total are zero: a divisor of one keeps that zero, and its gradient finite
    return x / total.masked_fill(total == 0.0, 1.0)


def _mix(phi_q: Tensor, phi_k: Tensor, v: Tensor) -> Tensor:
    total = phi_q @ phi_k.sum(-2)[..., None]
    return _divided(phi_q @ (phi_k.transpose(-1, -2) @ v), total)


def _by_definition(phi_q: Tensor, phi_k: Tensor, v: Tensor, mask: Mask) -> Mixed:
    scores = phi_q @ phi_k.transpose(-1, -2)
    keep_LS = Mask(causal=mask.causal).allowed(scores.shape[-2], scores.shape[-1], scores.device)
    if keep_LS is not None:
        scores = scores * keep_LS
    weights = _divided(scores, scores.sum(-1, keepdim=True))
    return Mixed((weights @ v).flatten(1, 2), weights.flatten(1, 2))


def _mix_causal(phi_q: Tensor, phi_k: Tensor, v: Tensor) -> Tensor:
    """Within a chunk by the masked product, from earlier chunks by their running sum."""
    length, longest = phi_q.shape[-2], max(phi_q.shape[-2], phi_k.shape[-2])
    chunks = -(-longest // CHUNK)
    # padding goes in front, where zeros add nothing and the last query still stands at the last key
    q, k, v = (
        F.pad(x, (0, 0, chunks * CHUNK - x.shape[-2], 0)).unflatten(-2, (chunks, CHUNK)) for x in (phi_q, phi_k, v)
    )
    near_NCC = (q @ k.transpose(-1, -2)).tril()
    out = near_NCC @ v + q @ _before(k.transpose(-1, -2) @ v)
    total = near_NCC.sum(-1, keepdim=True) + q @ _before(k.sum(-2)[..., None])
    return _divided(out, total).flatten(-3, -2)[..., -length:, :]


def _before(sums_NKK: Tensor) -> Tensor:
    """The sum over earlier chunks, which the first has none of."""
    return F.pad(sums_NKK.cumsum(-3)[..., :-1, :, :], (0, 0, 0, 0, 1, 0))
