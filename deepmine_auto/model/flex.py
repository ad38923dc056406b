"""Softmax over a pattern of positions by FlexAttention: one kernel, which passes over blocks where nothing is seen.

On CUDA alone. On a CPU it cannot be trained (torch 2.13), and there blocks of our own are as fast.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head, N blocks of C queries,
W blocks of keys.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from deepmine_auto.model.mask import Mask

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

DEVICES = frozenset({"cuda"})
DTYPES = frozenset({torch.float32, torch.bfloat16, torch.float16})
FEATURES = frozenset({"padding", "causal", "window"})
LEAST_DIM = 16
BLOCK = 128
"""The kernel passes over blocks of so many queries and keys, which is what torch chooses by itself."""
LEAST_LENGTH = 1024
"""On shorter inputs, blocks of 128 have little to pass over, and torch's flash kernel is hard to beat."""

MOST_BANDS = 16
"""So many block masks of causality and windows are kept, each of a length."""

MOST_COMPILED = 64
"""The kernel is compiled for each pattern, with and without padding, and again until lengths count as variable."""

_spent = False
"""Whether torch has refused to compile for one more, in this process."""

ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""Changes a score of a row, a head, a query and a key."""

Change = Callable[[Tensor], Tensor]
"""Changes a score, whatever the others are. A compiler reads it."""

Pattern = Callable[[Tensor, Tensor], Tensor]
"""Says whether queries at positions i see keys at positions j, which broadcast. A compiler reads it: what it knows are
tensors and numbers that it has closed over, and what it does to positions is done to each pair by itself."""


def serves(q_BHLK: Tensor, v_BGSK: Tensor, mask: Mask) -> bool:
    """Say whether FlexAttention can compute this, and would be faster."""
    return (
        v_BGSK.device.type in DEVICES
        and v_BGSK.dtype in DTYPES
        and v_BGSK.shape[-1] >= LEAST_DIM
        and min(q_BHLK.shape[2], v_BGSK.shape[2]) >= LEAST_LENGTH
        and mask.features <= FEATURES
        and not _spent
        and kernel() is not None
    )


@functools.cache
def kernel() -> Callable[..., Any] | None:
    """The compiled kernel, or None, with a warning, where it cannot be compiled: without a compiler or Triton. A
    process compiles for some seconds, once for each pattern."""
    from torch.nn.attention.flex_attention import flex_attention

    compiled = torch.compile(flex_attention, fullgraph=True)  # in part, it would keep all scores
    try:
        with torch.inference_mode(False), torch.enable_grad():  # who asks first may be judging, and is answered for all
            tried = torch.zeros(1, 1, 128, LEAST_DIM, device=next(iter(DEVICES)), requires_grad=True)
            compiled(tried, tried, tried).sum().backward()
    except Exception as error:  # whatever it is: there is another way
        reason = (str(error).strip().splitlines() or [""])[0]
        warnings.warn(f"FlexAttention does not compile here ({type(error).__name__}: {reason}).", stacklevel=2)
        return None
    return compiled


def blocks_of(pattern: Pattern, length: int, source: int, device: torch.device) -> BlockMask:
    """Which blocks of queries and keys the kernel has to look at; the last query stands at the last key.

    torch's own `create_block_mask` looks at all pairs at once, (L, S), which on long inputs takes more memory than all
    else; here it is a block of queries at a time.
    """
    from torch.nn.attention.flex_attention import BlockMask

    first = source - length
    i_NC = torch.arange(first, source, device=device).split(BLOCK)
    pairs_NW = torch.stack([_pairs(pattern, i_C, source) for i_C in i_NC])
    whole_NW = pairs_NW == BLOCK * BLOCK
    some, whole = _ordered((pairs_NW > 0) & ~whole_NW), _ordered(whole_NW)
    lengths = (length, source)
    return BlockMask.from_kv_blocks(*some, *whole, BLOCK, lambda _b, _h, i, j: pattern(i + first, j), lengths)


def _pairs(pattern: Pattern, i_C: Tensor, source: int) -> Tensor:
    """How many pairs with a block of queries a pattern allows in each block of keys, (W,)."""
    keep_CS = pattern(i_C[:, None], torch.arange(source, device=i_C.device)).expand(len(i_C), source)
    pairs_W: Tensor = F.pad(keep_CS, (0, -source % BLOCK)).unflatten(1, (-1, BLOCK)).sum((0, 2))
    return pairs_W


def _ordered(blocks_NW: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of keys each block of queries has, and which, these first: (1, 1, N) and (1, 1, N, W)."""
    order_NW = blocks_NW.int().argsort(dim=-1, descending=True, stable=True)
    return blocks_NW.sum(-1).int()[None, None], order_NW.int()[None, None]


@functools.lru_cache(maxsize=MOST_BANDS)
@torch.inference_mode(False)
def bands(
    length: int, source: int, causal: bool, window: tuple[int, int] | None, device: torch.device
) -> BlockMask | None:
    """The blocks that causality and a window leave, found once, for judging and training alike; None where these hide
    nothing."""
    if not causal and window is None:
        return None
    left, right = window or (source, source)
    right = 0 if causal else right
    return blocks_of(lambda i, j: (j >= i - left) & (j <= i + right), length, source, device)


def flex_softmax(
    q_BHLK: Tensor,
    k_BGSK: Tensor,
    v_BGSK: Tensor,
    blocks: BlockMask | None,
    padding_BS: Tensor | None,
    change: Change | None = None,
) -> Tensor:
    """Return softmax(q k / sqrt(K)) v, (B, H, L, K), within a pattern, with `change` made to each score; rows that see
    nothing are zero. Where torch compiles for no more patterns, all scores are kept this one time."""
    from torch.nn.attention.flex_attention import flex_attention

    asked = (q_BHLK, k_BGSK, v_BGSK, blocks, score_mod(padding_BS, change))
    out_BHLK = compiled_softmax(*asked)
    return _called(flex_attention, *asked) if out_BHLK is None else out_BHLK


def score_mod(padding_BS: Tensor | None, change: Change | None = None) -> ScoreMod | None:
    """What the kernel does to each score. Padding changes from batch to batch: it hides scores, so that the blocks can
    be kept."""

    def changed(score: Tensor, b: Tensor, _h: Tensor, _i: Tensor, j: Tensor) -> Tensor:
        score = score if change is None else change(score)
        return score if padding_BS is None else torch.where(padding_BS[b, j], score, -torch.inf)

    return None if padding_BS is None and change is None else changed


def compiled_softmax(
    q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, blocks: BlockMask | None, each: ScoreMod | None
) -> Tensor | None:
    """Return what the kernel computes; or None, with a warning, where torch compiles for no more patterns. Nothing is
    served then any more: a sound trial goes on by another way."""
    global _spent
    from torch._dynamo import config
    from torch._dynamo.exc import FailOnRecompileLimitHit

    run = kernel()
    assert run is not None
    try:
        with config.patch(recompile_limit=MOST_COMPILED):
            return _called(run, q_BHLK, k_BGSK, v_BGSK, blocks, each)
    except FailOnRecompileLimitHit:
        _spent = True
        warnings.warn("FlexAttention is compiled as often as torch allows; what follows is slower.", stacklevel=2)
        return None


def _called(
    run: Callable[..., Any],
    q_BHLK: Tensor,
    k_BGSK: Tensor,
    v_BGSK: Tensor,
    blocks: BlockMask | None,
    each: ScoreMod | None,
) -> Tensor:
    grouped = q_BHLK.shape[1] != k_BGSK.shape[1]
    q_BHLK, k_BGSK = q_BHLK.to(v_BGSK.dtype), k_BGSK.to(v_BGSK.dtype)  # in mixed precision they may differ
    out_BHLK: Tensor = run(q_BHLK, k_BGSK, v_BGSK, score_mod=each, block_mask=blocks, enable_gqa=grouped)
    return out_BHLK
