"""What the frozen lower part of a pretrained model says of each row, computed once and kept in the study's folder: a
trial that trains the head or the top alone pays only for these.

Rows are known by their tokens, so that a text that a technique has changed is computed as ever. Nothing is kept where
the lower part learns, drops out, or has attention that was put into it, nor of a model whose blocks share their weights
or pass on more than vectors.

Shapes: B batch, L length, D dim, T tokens of all rows.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deepmine_auto.errors import BadInput
from deepmine_auto.pretrained.parts import blocks_of
from deepmine_auto.pretrained.surgery import Transplant

if TYPE_CHECKING:
    from deepmine_auto.pretrained.stack import PretrainedStack
    from deepmine_auto.training.batching import Columns

MOST_BYTES = 2_000_000_000
"""What would take more than this is not kept."""

ROWS_AT_ONCE = 64


class Memory:
    """Vectors (T, D) of rows that were laid end to end, and where each row's begin."""

    def __init__(self, vectors_TD: Tensor, parts: Sequence[Columns]) -> None:
        self.vectors_TD = vectors_TD
        self.at: dict[bytes, slice] = {}
        begin = 0
        for columns in parts:
            for first, last in zip(columns.offsets[:-1].tolist(), columns.offsets[1:].tolist(), strict=True):
                self.at[columns.tokens[first:last].tobytes()] = slice(begin + first, begin + last)
            begin += len(columns.tokens)

    def recall(self, tokens_BL: Tensor, keep_BL: Tensor) -> Tensor | None:
        """What is known of a batch (B, L, D), zero for padding; None where a row is not known."""
        tokens, lengths = tokens_BL.cpu().numpy().astype(np.int32), keep_BL.sum(1).tolist()
        found = [self.at.get(row[:length].tobytes()) for row, length in zip(tokens, lengths, strict=True)]
        if None in found:
            return None
        known_BLD = self.vectors_TD.new_zeros(*tokens_BL.shape, self.vectors_TD.shape[1])
        for row, (length, where) in enumerate(zip(lengths, found, strict=True)):
            known_BLD[row, :length] = self.vectors_TD[where]
        return known_BLD.to(tokens_BL.device)


def frozen_blocks(model: nn.Module) -> int:
    """How many of the lowest blocks say the same of a text every time; 0 where something before them does not."""
    blocks = blocks_of(model)
    inside = {id(each) for block in blocks for each in block.modules()}
    if any(_changes(each) for each in model.modules() if id(each) not in inside):
        return 0
    still = [not any(map(_changes, block.modules())) for block in blocks]
    return still.index(False) if False in still else len(still)


def _changes(module: nn.Module) -> bool:
    """Whether a module learns or drops out; a variant that was put in may anneal, draw or add to the loss."""
    learns = any(each.requires_grad for each in module.parameters(recurse=False))
    return learns or isinstance(module, Transplant) or (isinstance(module, nn.Dropout) and module.p > 0)


def remember(stack: Any, folder: Path, parts: Sequence[Columns]) -> None:
    """Let a pretrained stack remember what its frozen part says of some rows; what is kept is made by whoever comes
    first. Any other module, and one that has no frozen part, computes as ever."""
    count = frozen_blocks(stack.model) if hasattr(stack, "memory") else 0
    tokens = sum(len(each.tokens) for each in parts)
    if not count or 4 * tokens * stack.dim > MOST_BYTES or not _pass_on(stack, count):
        return
    _watch(stack, count)
    file = folder / f"frozen-{_key(stack, count, parts)}.safetensors"
    if not file.exists():
        _make_once(file, stack, parts)
    if file.exists():
        stack.memory = Memory(load_file(file)["vectors"], parts)


def _pass_on(stack: PretrainedStack, count: int) -> bool:
    """Whether each of the lowest blocks is asked once for a text, and passes on nothing but its vectors (B, L, D). A
    block may be asked again where several share their weights, and may pass on what others need beside."""
    blocks, asked = [*blocks_of(stack.model)][:count], list[nn.Module | None]()
    tokens_BL = torch.ones((1, 2), dtype=torch.long, device=next(stack.parameters()).device)
    shape = (*tokens_BL.shape, stack.dim)

    def hear(block: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        asked.append(block if args and isinstance(out, Tensor) and out.shape == shape else None)

    hooks, was = [each.register_forward_hook(hear) for each in blocks], stack.training
    with torch.inference_mode():
        stack.eval()(tokens_BL, torch.ones_like(tokens_BL, dtype=torch.bool))
    stack.train(was)
    for each in hooks:
        each.remove()
    return asked == blocks


def _key(stack: PretrainedStack, count: int, parts: Sequence[Columns]) -> str:
    """One text for all that the vectors depend on: how the model is built, its weights, and the rows."""
    told = hashlib.sha256(json.dumps([count, stack.architecture, torch.__version__], sort_keys=True).encode())
    for name, each in stack.model.state_dict().items():
        told.update(name.encode() + each.detach().cpu().numpy().tobytes())
    for columns in parts:
        told.update(columns.tokens.tobytes() + columns.offsets.tobytes())
    return told.hexdigest()[:16]


def _make_once(file: Path, stack: PretrainedStack, parts: Sequence[Columns]) -> None:
    with open(file.with_suffix(".lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if file.exists():
            return
        vectors = [each for columns in parts for each in _vectors(stack, columns)]
        unfinished = file.with_name(f".{file.name}.{os.getpid()}")
        save_file({"vectors": torch.cat(vectors)}, unfinished)
        unfinished.rename(file)


def _vectors(stack: PretrainedStack, columns: Columns) -> list[Tensor]:
    """The vectors (L, D) of each row, in order; batches of like length keep padding small."""
    device, found = next(stack.parameters()).device, dict[int, Tensor]()
    ordered = np.argsort(columns.lengths, kind="stable")
    for at in range(0, len(ordered), ROWS_AT_ONCE):
        indices = ordered[at : at + ROWS_AT_ONCE]
        batch = columns.batch(indices, device)
        lower_BLD = _lower(stack, batch.tokens_BL, batch.keep_BL).cpu()
        for row, index in enumerate(indices.tolist()):
            found[index] = lower_BLD[row, : columns.lengths[index]].clone()
    return [found[each] for each in range(len(columns))]


class _EnoughError(Exception):
    """The frozen part has said what it has to say."""


def _lower(stack: PretrainedStack, tokens_BL: Tensor, keep_BL: Tensor) -> Tensor:
    was, stack.asked = stack.training, True
    try:
        with torch.inference_mode():
            stack.eval()(tokens_BL, keep_BL)
    except _EnoughError as enough:
        lower_BLD: Tensor = enough.args[0]
        return lower_BLD
    finally:
        stack.asked = False
        stack.train(was)
    raise BadInput("The frozen part of the pretrained model was not reached.", "Choose another tuning.")


# -- the lower blocks --------------------------------------------------------------------------------------------------


def _watch(stack: PretrainedStack, count: int) -> None:
    """Let the lowest blocks pass on what is remembered instead of computing it."""
    for place, block in enumerate(blocks_of(stack.model)[:count]):
        block.forward = partial(_passing, stack, block.forward, place == count - 1)


def _passing(stack: PretrainedStack, forward: Any, last: bool, hidden_BLD: Tensor, *args: Any, **told: Any) -> Any:
    if stack.given is not None:
        return stack.given if last else hidden_BLD
    out = forward(hidden_BLD, *args, **told)
    if last and stack.asked:
        raise _EnoughError(out)
    return out


@contextmanager
def forgotten(model: nn.Module) -> Iterator[None]:
    """Compute everything for a while, as predictions will."""
    stacks: list[Any] = [each for each in model.modules() if hasattr(each, "memory")]
    before = [each.memory for each in stacks]
    for each in stacks:
        each.memory = None
    try:
        yield
    finally:
        for each, memory in zip(stacks, before, strict=True):
            each.memory = memory
