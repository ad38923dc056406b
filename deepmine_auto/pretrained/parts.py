"""The parts of a model of transformers, whatever its architecture calls them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from deepmine_auto.errors import BadInput
from deepmine_auto.model.guard import Refused

ATTENTION = ("attention", "attn", "selfattention")
"""What stands in the name of a module that mixes tokens."""

PUT_IN = "deepmine"
"""What a layer calls that which was put into it, in the place of its attention or beside it."""


def alike(one: Tensor, other: Tensor) -> bool:
    """Whether a model says the same before and after a change that is to change nothing, but for rounding."""
    return torch.allclose(one, other, rtol=1e-3, atol=1e-4)


@contextmanager
def asked(model: nn.Module, training: bool = False) -> Iterator[None]:
    """A model as it predicts, or as it trains, without gradients; afterwards it is as it was."""
    was = model.training
    model.train(training)
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was)


def blocks_of(model: nn.Module) -> nn.ModuleList:
    """The blocks, bottom first: the longest list of modules. Raises BadInput where there is none."""
    lists = [each for _, each in _own(model) if isinstance(each, nn.ModuleList)]
    if not lists:
        raise BadInput(f"{_called(model)} has no list of layers.", "Choose another tuning, such as full.")
    return max(lists, key=len)


def top_blocks(model: nn.Module, top: float) -> list[nn.Module]:
    """The highest share `top` of the blocks, bottom first: at least one. Raises BadInput where there is none."""
    blocks = [*blocks_of(model)]
    return blocks[-max(1, math.ceil(top * len(blocks))) :]


def blocks_with_gradients(model: nn.Module) -> list[nn.Module]:
    """The blocks that gradients go through: from the lowest on that learns, or all where something beside them does.
    Raises BadInput where the model has none."""
    blocks = [*blocks_of(model)]
    learns = [any(each.requires_grad for each in block.parameters()) for block in blocks]
    inside = {id(each) for block in blocks for each in block.parameters()}
    if any(each.requires_grad and id(each) not in inside for each in model.parameters()):
        return blocks
    return blocks[learns.index(True) :] if True in learns else []


def linears_of(model: nn.Module, targets: str, top: float = 1.0) -> list[str]:
    """The names of the model's own linear maps within the highest share `top` of the blocks: all (`linear`), those that
    mix tokens (`attention`), or those of another name. Raises BadInput where there is none, and Refused where there are
    others."""
    inside = {id(each) for block in top_blocks(model, top) for each in block.modules() if isinstance(each, nn.Linear)}
    names = [name for name, each in _own(model) if id(each) in inside]
    if not names:  # GPT-2 has maps of a kind of its own
        what = f"{_called(model)} has no nn.Linear in the blocks to be tuned."
        raise BadInput(what, "Choose another tuning, such as full.")
    found = [each for each in names if _meant(each, targets)]
    if not found:
        near = get_close_matches(targets, {each.rpartition(".")[2] for each in names}, cutoff=0.0)
        what = f"{_called(model)} has no such layer as '{targets}' in the blocks to be tuned, but {', '.join(near)}."
        # no plugin is to blame: its other targets may be there
        raise Refused(what, "Choose another tuning, or other targets where it has them.")
    return found


def _meant(name: str, targets: str) -> bool:
    return targets == "linear" or (_mixes(name) if targets == "attention" else name.rpartition(".")[2] == targets)


def ends_of(block: nn.Module) -> tuple[str, str]:
    """The names of the block's own linear maps that end its attention and its feed-forward part. Raises BadInput."""
    names = [name for name, each in _own(block) if isinstance(each, nn.Linear)]
    attention, others = [each for each in names if _mixes(each)], [each for each in names if not _mixes(each)]
    if not attention or not others:
        what = f"{type(block).__name__} has no attention and feed-forward part made of nn.Linear."
        raise BadInput(what, "Choose another tuning, such as full.")
    return attention[-1], others[-1]


def biases_of(model: nn.Module) -> set[str]:
    """The names of the model's own biases. Raises BadInput where it has none."""
    found = {name for name, _ in model.named_parameters() if name.endswith("bias") and PUT_IN not in name.split(".")}
    if not found:
        raise BadInput(f"{_called(model)} has no biases.", "Choose another tuning, such as lora.")
    return found


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


def _called(model: nn.Module) -> str:
    """What transformers calls a model, also where it stands in a backbone."""
    return type(getattr(model, "model", model)).__name__
