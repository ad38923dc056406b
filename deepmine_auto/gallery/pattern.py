"""Who looks at whom: the weights of a variant on a few random tokens, as plain numbers.

Shapes: B batch, L length, D dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from deepmine_auto.contracts import Attention, AttentionCore, AttentionModifier, AttentionShape, Caps, Mode
from deepmine_auto.space import ranges

if TYPE_CHECKING:
    import torch
    from torch import nn

TOKENS = 24
DIM, HEADS = 256, 4
SHARP = 2.0
"""How far tokens are spread. A norm leaves one, and with that new projections hardly tell tokens apart."""
MOVED = 0.5
"""How far a modifier's learned parameters are moved from their start, at which several of them change nothing."""
MANY = 128
"""The size of a parameter above which its numbers, which are then summed, are moved less."""
FEW = 4
"""The largest whole number of a variant where its default is too large to be seen: a window, a block."""

Rows = list[list[float]]


class Pattern(NamedTuple):
    """The weights of the first head, a row for each query, and the fields that were made small to be seen."""

    mode: Mode
    rows: Rows
    small: dict[str, int]


class Drawn(NamedTuple):
    """The patterns of a variant, one a mode, or why there are none."""

    patterns: list[Pattern]
    why_none: str = ""


@dataclass(frozen=True, kw_only=True)
class _Ground(AttentionCore):
    """Softmax by its definition, on which modifiers are drawn."""

    name: ClassVar[str] = "softmax"
    source: ClassVar[str] = "arXiv:1706.03762"
    caps: ClassVar[Caps] = Caps.everywhere(weights="exact", matrix=True)

    def build(self, shape: AttentionShape) -> nn.Module:
        from deepmine_auto.model.dense import DenseAttention

        return DenseAttention()


def draw(cls: type[Attention]) -> Drawn:
    """Draw a variant in each declared mode in which tokens look at each other."""
    modes: list[Mode] = [mode for mode in ("bidirectional", "causal") if mode in cls.caps.modes]
    if cls.caps.weights == "none":
        return Drawn([], "it has no matrix")
    if not modes:
        return Drawn([], "it looks from one sequence at another")
    try:
        return Drawn([_pattern(cls, mode) for mode in modes])
    except Exception as error:  # a plugin's own code, whatever it raises: the rest can still be shown
        return Drawn([], f"it cannot be drawn: {type(error).__name__}: {error}")


def shares(rows: Sequence[Sequence[float]]) -> Rows:
    """Each weight as a share of the largest in its row, from -1 to 1: a late row has many small ones, and is seen too.

    >>> shares([[0.25, 0.5], [0.0, 0.0]])
    [[0.5, 1.0], [0.0, 0.0]]
    """
    tops = [max(map(abs, row), default=0.0) or 1.0 for row in rows]
    return [[each / top for each in row] for row, top in zip(rows, tops, strict=True)]


# -- weights -----------------------------------------------------------------------------------------------------------


def _pattern(cls: type[Attention], mode: Mode) -> Pattern:
    """At its defaults, but for whole numbers that must be small for anything to be hidden: from 24 tokens a window of
    64 hides nothing. They shrink together, as a block and its columns must, and then as many as can are set back."""
    variant = cls()
    plain, small = _weights(variant, mode), _shrunk(variant)

    def hides(changed: dict[str, int]) -> bool:
        return _hidden(_tried(variant, changed, mode)) > _hidden(plain)

    if not hides(small):
        return Pattern(mode, plain, {})
    for name in list(small):
        fewer = {each: value for each, value in small.items() if each != name}
        small = fewer if hides(fewer) else small
    return Pattern(mode, _tried(variant, small, mode), small)


def _shrunk(variant: Attention) -> dict[str, int]:
    """The searched whole numbers in their proportions, the largest of them `FEW`, and none below one."""
    whole = {name: value for name in ranges(type(variant)) if type(value := getattr(variant, name)) is int}
    share = min(1.0, FEW / max(1, *whole.values())) if whole else 1.0
    return {name: max(1, round(share * value)) for name, value in whole.items()}


def _tried(variant: Attention, changed: dict[str, int], mode: Mode) -> Rows:
    try:
        return _weights(replace(variant, **changed), mode)  # type: ignore[type-var]
    except Exception:  # a value outside its range, or one that another field excludes, may do anything
        return []


def _hidden(rows: Rows) -> int:
    return sum(abs(each) < 1e-9 for row in rows for each in row)


def _weights(variant: Attention, mode: Mode) -> Rows:
    import torch

    from deepmine_auto.model.mask import Mask

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        dtype = _dtype(variant.caps)
        x_BLD = SHARP * torch.randn(1, TOKENS, DIM, dtype=torch.float64).to(dtype)
        layer = _layer(variant, mode).to(dtype).eval()
        mixed, _ = layer(x_BLD, Mask(causal=mode == "causal"), None, weights=True)
    if mixed.weights is None:
        raise ValueError("it declares weights, and gave none")
    rows: Rows = mixed.weights[0, 0].double().nan_to_num().tolist()
    return rows


def _dtype(caps: Caps) -> torch.dtype:
    import torch

    dtype: torch.dtype = getattr(torch, "float64" if "float64" in caps.dtypes else min(caps.dtypes))
    return dtype


def _layer(variant: Attention, mode: Mode) -> nn.Module:
    import torch

    from deepmine_auto.model.multi_head import token_mixer

    shape = AttentionShape(dim=DIM, heads=HEADS, kv_heads=HEADS, layer=1, max_len=TOKENS, mode=mode)
    if not isinstance(variant, AttentionModifier):
        return token_mixer(variant, [], shape)
    layer = token_mixer(_Ground(), [variant], shape)
    for each in layer.modifiers.parameters():  # type: ignore[union-attr]
        each.add_(MOVED * min(1.0, MANY / each.numel()) ** 0.5 * torch.randn_like(each))
    return layer
