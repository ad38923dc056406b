"""The parts of a model of transformers, whatever its architecture calls them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from deepmine_auto.errors import BadInput

ATTENTION = ("attention", "attn", "selfattention")
"""What stands in the name of a module that mixes tokens."""

PUT_IN = "deepmine"
"""What a layer calls that which was put into it, in the place of its attention or beside it."""


def blocks_of(model: nn.Module) -> nn.ModuleList:
    """The blocks, bottom first: the longest list of modules. Raises BadInput where there is none."""
    lists = [each for _, each in _own(model) if isinstance(each, nn.ModuleList)]
    if not lists:
        raise BadInput(f"{type(model).__name__} has no list of layers.", "Choose another tuning, such as full.")
    return max(lists, key=len)


def linears_of(model: nn.Module, targets: str) -> list[str]:
    """The names of the model's own linear maps within the blocks: all (`linear`), or those that mix tokens
    (`attention`). Raises BadInput where there is none."""
    blocks = blocks_of(model)
    inside = {id(each) for block in blocks for each in block.modules() if isinstance(each, nn.Linear)}
    names = [name for name, each in _own(model) if id(each) in inside]
    found = [each for each in names if targets == "linear" or _mixes(each)]
    if not found:
        raise BadInput(f"{type(model).__name__} has no such layer as '{targets}'.", "Choose other targets.")
    return found


def ends_of(block: nn.Module) -> tuple[str, str]:
    """The names of the block's own linear maps that end its attention and its feed-forward part. Raises BadInput."""
    names = [name for name, each in _own(block) if isinstance(each, nn.Linear)]
    attention, others = [each for each in names if _mixes(each)], [each for each in names if not _mixes(each)]
    if not attention or not others:
        raise BadInput(f"{type(block).__name__} has no attention and feed-forward part.", "Choose another tuning.")
    return attention[-1], others[-1]


def wrap(block: nn.Module, name: str, around: Callable[[Any], nn.Module]) -> None:
    """Put something around a layer of a block."""
    parent, _, last = name.rpartition(".")
    setattr(block.get_submodule(parent), last, around(block.get_submodule(name)))


def _own(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that were there before surgery: variants learn all that they have beside a tuning."""
    return ((name, each) for name, each in model.named_modules() if PUT_IN not in name.split("."))


def _mixes(name: str) -> bool:
    return any(part.lower().endswith(ATTENTION) for part in _parents(name))


def _parents(name: str) -> Iterator[str]:
    yield from name.split(".")[:-1]
