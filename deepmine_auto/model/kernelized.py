"""Attention whose weights are phi(q) phi(k) / sum for features that are not negative, so that keys and values are
summed once for all queries.

What linear, random-feature and cosine attention share; each brings its own features.

Shapes: B batch, H heads, G key-value heads, R query heads of one key-value head, L length, S source length,
K dim of one head, M features, N chunks, C tokens of one chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from deepmine_auto.contracts import Mixed
from deepmine_auto.model.mask import Mask
from deepmine_auto.model.precision import full_precision, in_mixed_precision

CHUNK = 64
"""Smaller ones waste time on sums between them, larger ones on pairs within them (measured)."""


def kernel_attention(
    phi_q_BHLM: Tensor, phi_k_BGSM: Tensor, v_BGSK: Tensor, mask: Mask, *, weights: bool = False
) -> Mixed:
    """Mix values by features, under a mask of padding and causal; weights (B, H, L, S) come when asked for. What would
    be summed in float16 is summed in float32."""
    if _in_float16(v_BGSK):
        with full_precision(v_BGSK):
            mixed = kernel_attention(phi_q_BHLM.float(), phi_k_BGSM.float(), v_BGSK.float(), mask, weights=weights)
        return mixed._replace(out=mixed.out.half())
    phi_q_BGRLM = phi_q_BHLM.unflatten(1, (phi_k_BGSM.shape[1], -1))
    if mask.padding is not None:
        phi_k_BGSM = phi_k_BGSM * mask.padding[:, None, :, None]
    phi_k, v = phi_k_BGSM[:, :, None], v_BGSK[:, :, None]
    if weights:
        return kernel_by_definition(phi_q_BGRLM, phi_k, v, mask)
    mix = kernel_mix_causal if mask.causal else kernel_mix
    return Mixed(mix(phi_q_BGRLM, phi_k, v).flatten(1, 2))


def _in_float16(x: Tensor) -> bool:
    """Whether products are made in float16, where a sum over some thousand keys may be infinite, and what is divided by
    it zero, without a word."""
    if in_mixed_precision(x):
        return torch.get_autocast_dtype(x.device.type) is torch.float16
    return x.dtype is torch.float16


def kernel_mix(phi_q: Tensor, phi_k: Tensor, v: Tensor) -> Tensor:
    """Every query sees every key: in time and memory that grow with L."""
    total = phi_q @ phi_k.sum(-2)[..., None]
    return _divided(phi_q @ (phi_k.transpose(-1, -2) @ v), total)


def kernel_mix_causal(phi_q: Tensor, phi_k: Tensor, v: Tensor) -> Tensor:
    """Within a chunk by the masked product, from earlier chunks by their running sum."""
    length, longest = phi_q.shape[-2], max(phi_q.shape[-2], phi_k.shape[-2])
    chunks = -(-longest // CHUNK)
    v = F.pad(v, (0, 1), value=1.0)  # one more dim of the values sums the weights
    # padding goes in front, where zeros add nothing and the last query still stands at the last key
    q, k, v = (
        F.pad(x, (0, 0, chunks * CHUNK - x.shape[-2], 0)).unflatten(-2, (chunks, CHUNK)) for x in (phi_q, phi_k, v)
    )
    near_NCC = (q @ k.transpose(-1, -2)).tril()
    out = (near_NCC @ v + q @ _before(k.transpose(-1, -2) @ v)).flatten(-3, -2)[..., -length:, :]
    return _divided(out[..., :-1], out[..., -1:])


def kernel_by_definition(phi_q_BGRLM: Tensor, phi_k: Tensor, v: Tensor, mask: Mask) -> Mixed:
    """The same with its weights; padded keys have no features any more."""
    scores = phi_q_BGRLM @ phi_k.transpose(-1, -2)
    keep_LS = Mask(causal=mask.causal).allowed(scores.shape[-2], scores.shape[-1], scores.device)
    if keep_LS is not None:
        scores = scores * keep_LS
    weights = _divided(scores, scores.sum(-1, keepdim=True))
    return Mixed((weights @ v).flatten(1, 2), weights.flatten(1, 2))


def _divided(x: Tensor, total: Tensor) -> Tensor:
    # where a query sees nothing, x and total are zero: a divisor of one keeps that zero, and its gradient finite
    return x / total.masked_fill(total == 0.0, 1.0)


def _before(sums_NMK: Tensor) -> Tensor:
    """The sum over earlier chunks, which the first has none of."""
    return F.pad(sums_NMK.cumsum(-3)[..., :-1, :, :], (0, 0, 0, 0, 1, 0))
