"""Layers, masks and rows that the promises of attention are about.

A core or a mixer is tested as it is; a modifier stands on softmax by its definition. All sums are in float64.

Shapes: B batch, L length, S source length, D dim, H heads, G key-value heads, K dim of one head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar, TypeVar

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from deepmine_auto.contracts import (
    Attention,
    AttentionCore,
    AttentionModifier,
    AttentionShape,
    Caps,
    MaskFeature,
    Mixed,
    Mode,
)
from deepmine_auto.model.dense import DenseAttention, biased, hook_of, repeated
from deepmine_auto.model.mask import Mask
from deepmine_auto.model.multi_head import token_mixer
from deepmine_auto.testing.drawing import drawn

V = TypeVar("V", bound=Attention)

ROWS, HEADS, DIM = 2, 4, 16
SHAPE = AttentionShape(dim=DIM, heads=HEADS, kv_heads=HEADS, layer=1)
LONG = 150
"""A length at which variants that work by blocks or chunks have left their short path."""
TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 0.1, "float16": 0.02}


# -- what is drawn ---------------------------------------------------------------------------------------------------


@cache
def variants(cls: type[V]) -> st.SearchStrategy[V]:
    """Draw instances of a class; to read its ranges takes longer than to draw from them."""
    return drawn(cls)


def longest(caps: Caps) -> int:
    """A length for blocks, or what the variant takes."""
    return LONG if caps.max_len is None else min(LONG, caps.max_len)


def lengths(caps: Caps, at_least: int = 1) -> st.SearchStrategy[int]:
    """Draw a length. The first example is long enough for blocks; of the others few are, because they take longest."""
    return _lengths(at_least, longest(caps))


@cache
def _lengths(at_least: int, most: int) -> st.SearchStrategy[int]:
    return st.sampled_from((most, at_least, *range(at_least, min(12, most) + 1), most))


@st.composite
def masks(draw: st.DrawFn, caps: Caps, mode: Mode, length: int, source: int | None = None) -> Mask:
    """Draw a mask of declared features; it may leave rows that see nothing."""
    source = length if source is None else source
    rng = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    parts: dict[str, Callable[[], Any]] = {
        "padding": lambda: torch.rand(ROWS, source, generator=rng) < 0.7,
        "window": lambda: (draw(st.integers(0, 3)), draw(st.integers(0, 3))),
        "bias": lambda: torch.randn(1, HEADS, length, source, generator=rng, dtype=torch.float64),
        "dense": lambda: torch.rand(ROWS, 1, length, source, generator=rng) < 0.7,
    }
    declared = sorted(caps.masks & set(parts))
    used = {name: parts[name]() for name in sorted(draw(st.sets(st.sampled_from(declared))))} if declared else {}
    if "bias" in used and draw(st.booleans()):
        used["bias"] = used["bias"].masked_fill(used["bias"] < -1.0, -torch.inf)
    return Mask(causal=mode == "causal", **used)


def set_seed() -> None:
    """Seed what modules are built with. `torch.manual_seed` does so for devices that are not there too, which takes
    longer than to build a layer."""
    torch.default_generator.manual_seed(0)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Seeded normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- what is tested --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Softmax(AttentionCore):
    """Softmax by its definition: the ground that modifiers are tested on."""

    name: ClassVar[str] = "softmax_by_definition"
    source: ClassVar[str] = "arXiv:1706.03762"
    caps: ClassVar[Caps] = Caps.everywhere(
        dtypes=frozenset(TOLERANCE), weights="exact", normalized=True, matrix=True, decoding="kv"
    )

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the module."""
        return DenseAttention()


def layer_of(variant: Attention, mode: Mode, *, shape: AttentionShape = SHAPE, moved: bool = True) -> nn.Module:
    """The variant as the token mixing of a layer. Learned parameters are moved from their start, because one that
    starts at zero would hide what it does."""
    set_seed()
    shape = replace(shape, mode=mode)
    if isinstance(variant, AttentionModifier):
        layer = token_mixer(Softmax(), [variant], shape).double().eval()
    else:
        layer = token_mixer(variant, [], shape).double().eval()
    if moved:
        move(layer)
    return layer


def move(module: nn.Module) -> None:
    """Move every learned number a little, so that what begins at zero counts too."""
    with torch.no_grad():
        for each in module.parameters():
            each.add_(0.1 * torch.randn_like(each))


def mixing_of(variant: Attention, kv_heads: int = HEADS) -> Callable[[Tensor, Tensor, Tensor, Mask, bool], Mixed]:
    """The variant as a function of queries, keys and values."""
    set_seed()
    module: Any = variant.build(replace(SHAPE, kv_heads=kv_heads)).double().eval()
    move(module)

    def core(q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, weights: bool) -> Mixed:
        mixed: Mixed = module(q_BHLK, k_BGSK, v_BGSK, mask, weights=weights)
        return mixed

    def modifier(q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, weights: bool) -> Mixed:  # noqa: ARG001
        x_BLD = q_BHLK.transpose(1, 2).flatten(2)
        if hook_of(module, "on_past"):
            k_BGSK, v_BGSK = (repeated(each, HEADS) for each in (k_BGSK, v_BGSK))
            seen_BHS = numbers(ROWS, HEADS, k_BGSK.shape[2], seed=2).softmax(-1)
            k_BGSK = module.on_past(k_BGSK, seen_BHS, 2.0 * seen_BHS)
        if hook_of(module, "on_qk"):
            q_BHLK, k_BGSK = module.on_qk(q_BHLK, k_BGSK, mask)
        mask = biased(mask, q_BHLK, k_BGSK, [module])
        mixed = DenseAttention().mix(q_BHLK, k_BGSK, v_BGSK, mask, [module])
        return mixed._replace(out=module.on_out(mixed.out, x_BLD)) if hook_of(module, "on_out") else mixed

    return modifier if isinstance(variant, AttentionModifier) else core


@dataclass(frozen=True)
class Symbols:
    """What a host must know of a task: ten symbols, of which the last divides source and target."""

    vocabulary: int = 10
    outputs: int = 2
    separator: int = 9
    max_len: int = 16
    vectors_VE: None = None


SYMBOLS: Any = Symbols()


LATER = (8, 4)


def rows_of_tokens() -> tuple[Tensor, Tensor, Tensor]:
    """Two rows (B, L) with the separator at 6 and 2, others that differ from LATER on, and what to keep. The first row
    ends there; in the second it is the target, where the first one still has source."""
    tokens_BL = torch.randint(1, 9, (ROWS, 10), generator=torch.Generator().manual_seed(0))
    tokens_BL[0, 6] = tokens_BL[1, 2] = SYMBOLS.separator
    others_BL, at_L = tokens_BL.clone(), torch.arange(10)
    for row, later in enumerate(LATER):
        others_BL[row, later:] = 1 + tokens_BL[row, later:] % 8
    return tokens_BL, others_BL, at_L < torch.tensor([[LATER[0]], [10]])


def mixed_by(layer: nn.Module, x_BLD: Tensor, mask: Mask, *, weights: bool = False) -> Mixed:
    """Call a layer without a state."""
    mixed, _ = layer(x_BLD, mask, None, weights=weights)
    assert isinstance(mixed, Mixed)
    return mixed


def products_of(layer: nn.Module, x_BLD: Tensor, mode: Mode) -> int:
    """The floating point operations of all matrix products of a forward pass."""
    # the counter knows the products of the plain kernel, not the fused one
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        mixed_by(layer, x_BLD, Mask(causal=mode == "causal"))
    return int(counter.get_total_flops())


def disturbed(x_BLD: Tensor, tokens: Tensor | slice) -> Tensor:
    """The same rows with other numbers at some tokens."""
    other_BLD = x_BLD.clone()
    other_BLD[:, tokens] += 3.0 * torch.randn_like(other_BLD[:, tokens])
    return other_BLD


def hiding(feature: MaskFeature, length: int) -> Mask:
    """A mask of one feature that hides the last but one token, from all or from those that are far."""
    visible_L = torch.arange(length) != length - 2
    return {
        "padding": Mask(padding=visible_L.expand(ROWS, length)),
        "causal": Mask(causal=True),
        "window": Mask(window=(1, 1)),
        "bias": Mask(bias=torch.zeros(length, length).double().masked_fill(~visible_L, -torch.inf)[None, None]),
        "dense": Mask(dense=visible_L.expand(length, length)),
    }[feature]


def example_of(feature: MaskFeature, length: int) -> Mask:
    """A mask that uses one feature."""
    return {
        "padding": Mask(padding=torch.ones(ROWS, length, dtype=torch.bool)),
        "causal": Mask(causal=True),
        "window": Mask(window=(1, 1)),
        "bias": Mask(bias=numbers(1, 1, length, length)),
        "dense": Mask(dense=torch.ones(length, length, dtype=torch.bool)),
    }[feature]
