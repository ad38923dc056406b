"""What the frozen lower part of a pretrained model says of each row, computed once and kept in the study's folder: a
trial that trains the head or the top alone pays only for these.

Rows are known by their tokens, so that a text that a technique has changed is computed as ever. What is remembered
drops out nothing. Nothing is kept where the lower part learns or has attention that was put into it, nor of a model
whose blocks share their weights or pass on more than vectors, or that computes more than its blocks do, or that drops
out without a module for it.

Shapes: B batch, L length, D dim, T tokens of all rows, N tokens of a batch.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deepmine_auto.disk import file_lock, flush
from deepmine_auto.errors import BadInput
from deepmine_auto.pretrained.parts import alike, asked, blocks_of
from deepmine_auto.pretrained.surgery import Transplant
from deepmine_auto.training.batching import Columns, evaluation_order
from deepmine_auto.training.ends import out_of_memory

if TYPE_CHECKING:
    from deepmine_auto.contracts import Batch
    from deepmine_auto.pretrained.stack import PretrainedStack

MOST_BYTES = 2_000_000_000
"""What would take more than this is not kept."""

MOST_BYTES_OF_ALL = 8_000_000_000
"""Nor is what would take more than this together with all that is kept in the folder."""

ABANDONED_SECONDS = 6 * 3600.0
"""What is half written, and was not touched for so long, is deleted. Other machines may write to the folder too, and
which of their processes live is not known here."""

ROWS_AT_ONCE = 64
TOKENS_AT_ONCE = 4_096
"""So many rows are computed at once, and so many tokens with padding, as in an evaluation on a CPU; a row that has more
is computed alone."""

COMPARED_ROWS = 8
"""On so many of the shortest rows a model has to say the same where its lowest blocks are passed over."""


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
    """How many of the lowest blocks stay as they are; 0 where something beside the blocks does not."""
    blocks = blocks_of(model)
    inside = {id(each) for block in blocks for each in block.modules()}
    if any(_changes(each) for each in model.modules() if id(each) not in inside):
        return 0
    still = [not any(map(_changes, block.modules())) for block in blocks]
    return still.index(False) if False in still else len(still)


def _changes(module: nn.Module) -> bool:
    """Whether a module learns; a variant that was put in may anneal, draw or add to the loss."""
    return isinstance(module, Transplant) or any(each.requires_grad for each in module.parameters(recurse=False))


def remember(stack: Any, folder: Path, parts: Sequence[Columns], *, worth: bool = True) -> None:
    """Let a pretrained stack remember what its frozen part says of some rows, if that is `worth` it; what is kept is
    made by whoever comes first. Any other module computes as ever, and so does one that has no frozen part.

    A part that can be remembered drops out nothing, whether it is or not: what a trial learns must not depend on the
    room that a disk has.
    """
    count = frozen_blocks(stack.model) if hasattr(stack, "memory") else 0
    if not count or not (forms := _forms(stack, count)):
        return
    _watch(stack, forms)
    if not _kept_still(stack, count, parts[0]) or not worth or _size(stack, parts) > MOST_BYTES:
        return
    file = folder / f"frozen-{_key(stack, count, parts)}.safetensors"
    if _is_there(file, stack, parts):
        stack.memory = Memory(load_file(file)["vectors"], parts)


def _kept_still(stack: PretrainedStack, count: int, columns: Columns) -> bool:
    """Let nothing drop out in the lowest blocks and before them, and return whether these can be passed over then;
    where they cannot, all drops out as it did."""
    below = [each for block in blocks_of(stack.model)[:count] for each in block.modules()]
    dropping = [each for each in [*below, *_asked_below(stack, columns)] if isinstance(each, nn.Dropout)]
    rates = {each: each.p for each in dropping}
    for each in rates:
        each.p = 0.0
    if _can_be_passed_over(stack, columns):
        return True
    for each, rate in rates.items():
        each.p = rate
    return False


def _asked_below(stack: PretrainedStack, columns: Columns) -> list[nn.Module]:
    """What computes before the frozen part has said what it has to say."""
    heard: list[nn.Module] = []
    hooks = [each.register_forward_pre_hook(lambda own, _: heard.append(own)) for each in stack.modules()]
    batch = columns.batch([int(columns.lengths.argmin())], next(stack.parameters()).device)
    try:
        _lower(stack, batch.tokens_BL, batch.keep_BL)
    finally:
        for each in hooks:
            each.remove()
    return heard


def _size(stack: PretrainedStack, parts: Sequence[Columns]) -> int:
    """How many bytes the vectors of all rows take."""
    return 4 * stack.dim * sum(len(each.tokens) for each in parts)


def _forms(stack: PretrainedStack, count: int) -> list[int]:
    """In which form each of the lowest blocks passes on its vectors; empty where they cannot be passed over.

    ALBERT asks one block for every layer, and it says something else of a text each time. T5's first block passes on a
    bias of positions beside them, which the later ones add and cannot compute.
    """
    blocks = [*blocks_of(stack.model)][:count]
    heard = _heard(stack, blocks)
    forms = [form for _, out in heard if (form := _form(out, stack.dim)) is not None]
    return forms if [block for block, _ in heard] == blocks and len(forms) == count else []


def _heard(stack: PretrainedStack, blocks: Sequence[nn.Module]) -> list[tuple[nn.Module, Any]]:
    """What blocks say while the model reads a text of two tokens, in order; None where they take nothing by place."""
    heard: list[tuple[nn.Module, Any]] = []

    def hear(block: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        heard.append((block, out if args else None))

    hooks = [each.register_forward_hook(hear) for each in blocks]
    tokens_BL = torch.ones((1, 2), dtype=torch.long, device=next(stack.parameters()).device)
    with asked(stack):
        stack(tokens_BL, torch.ones_like(tokens_BL, dtype=torch.bool))
    for each in hooks:
        each.remove()
    return heard


def _form(out: Any, dim: int) -> int | None:
    """The form of what a block says of two tokens: 0 for vectors (B, L, D) as they are, n for a tuple of n, of which
    they are the first and the others are None; None for anything more."""
    size = len(out) if type(out) is tuple else 0
    vectors, *beside = out if size else (out,)
    alone = isinstance(vectors, Tensor) and vectors.shape == (1, 2, dim) and all(each is None for each in beside)
    return size if alone else None


def _can_be_passed_over(stack: PretrainedStack, columns: Columns) -> bool:
    """Whether the model says of a few rows what it said before, where its lowest blocks do not compute.

    XLM keeps attentions, norms and feed-forward parts in lists of their own, of which the attentions count as blocks.
    """
    few = _shortest(columns)
    batch = few.batch(range(len(few)), next(stack.parameters()).device)
    if _draws(stack, batch):
        return False
    computed_ND = _said(stack, batch)
    stack.memory = Memory(_lower(stack, batch.tokens_BL, batch.keep_BL)[batch.keep_BL], [few])
    try:
        return alike(_said(stack, batch), computed_ND)
    finally:
        stack.memory = None


def _draws(stack: PretrainedStack, batch: Batch) -> bool:
    """Whether the lower part says something else each time while it trains: some drop out without a module for it."""
    device = batch.tokens_BL.device
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            one_BLD, other_BLD = (_lower(stack, batch.tokens_BL, batch.keep_BL, training=True) for _ in range(2))
    except BadInput:  # it was not reached: whole layers drop out
        return True
    return not alike(one_BLD[batch.keep_BL], other_BLD[batch.keep_BL])


def _shortest(columns: Columns) -> Columns:
    chosen = np.argsort(columns.lengths, kind="stable")[:COMPARED_ROWS]
    return Columns.of([columns.tokens[columns.offsets[each] : columns.offsets[each + 1]].tolist() for each in chosen])


def _said(stack: PretrainedStack, batch: Batch) -> Tensor:
    """What the model says of all tokens of a batch."""
    with asked(stack):
        out_ND: Tensor = stack(batch.tokens_BL, batch.keep_BL).out[batch.keep_BL]
    return out_ND


def _key(stack: PretrainedStack, count: int, parts: Sequence[Columns]) -> str:
    """One text for all that the vectors depend on: how the model is built, the weights of its frozen part, and the
    rows. What stands above, and what a tuning has put in, is another's in each trial."""
    told = hashlib.sha256(json.dumps([count, stack.architecture, torch.__version__], sort_keys=True).encode())
    above = {id(each) for block in blocks_of(stack.model)[count:] for each in block.state_dict(keep_vars=True).values()}
    for name, each in stack.model.state_dict(keep_vars=True).items():
        if name in stack.own and id(each) not in above:
            told.update(name.encode() + each.detach().cpu().numpy().tobytes())
    for columns in parts:
        told.update(columns.tokens.tobytes() + columns.offsets.tobytes())
    return told.hexdigest()[:16]


# -- the file ----------------------------------------------------------------------------------------------------------


def _is_there(file: Path, stack: PretrainedStack, parts: Sequence[Columns]) -> bool:
    """Whether a file is there, made if need be. Raises what is wrong with the model."""
    if not file.exists():
        try:
            _make_once(file, stack, parts)
        except (OSError, SafetensorError, MemoryError, RuntimeError) as error:
            # the disk is full or away, or memory is too small: a trial can do without
            if isinstance(error, RuntimeError) and not out_of_memory(error):
                raise
    return file.exists()


def _make_once(file: Path, stack: PretrainedStack, parts: Sequence[Columns]) -> None:
    with file_lock(file.with_suffix(".lock")):
        if not file.exists():
            _delete_abandoned(file.parent)
            _make(file, stack, parts)


def _make(file: Path, stack: PretrainedStack, parts: Sequence[Columns]) -> None:
    """Make the file if there is room for it. Whatever ends this, nothing is left half written."""
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        unfinished.touch()
        os.truncate(unfinished, _size(stack, parts))  # who makes another one meanwhile counts it already
        if _taken(file.parent) <= MOST_BYTES_OF_ALL:
            vectors = [each for columns in parts for each in _vectors(stack, columns)]
            save_file({"vectors": torch.cat(vectors)}, unfinished)
            flush(unfinished)  # a disk on the network may say only now that it is full
            unfinished.rename(file)
    finally:
        unfinished.unlink(missing_ok=True)


def _taken(folder: Path) -> int:
    """How many bytes all takes that is kept in a folder or being made."""
    taken = 0
    for each in folder.glob("*frozen-*"):  # .frozen- is half written
        with suppress(FileNotFoundError):  # it has just been renamed or deleted
            taken += each.stat().st_size
    return taken


def _delete_abandoned(folder: Path) -> None:
    """Delete what killed processes have left half written."""
    for each in folder.glob(".frozen-*"):
        with suppress(OSError):  # it has just been renamed or deleted, or is another user's
            if time.time() - each.stat().st_mtime > ABANDONED_SECONDS:
                each.unlink()


def _vectors(stack: PretrainedStack, columns: Columns) -> list[Tensor]:
    """The vectors (L, D) of each row, in order; batches of like length keep padding small."""
    device, found = next(stack.parameters()).device, dict[int, Tensor]()
    for indices in evaluation_order(columns.lengths, ROWS_AT_ONCE, TOKENS_AT_ONCE):
        batch = columns.batch(indices, device)
        lower_BLD = _lower(stack, batch.tokens_BL, batch.keep_BL).cpu()
        for row, index in enumerate(indices.tolist()):
            found[index] = lower_BLD[row, : columns.lengths[index]].clone()
    return [found[each] for each in range(len(columns))]


class _EnoughError(Exception):
    """The frozen part has said what it has to say."""


def _lower(stack: PretrainedStack, tokens_BL: Tensor, keep_BL: Tensor, training: bool = False) -> Tensor:
    stack.asked = True
    try:
        with asked(stack, training):
            stack(tokens_BL, keep_BL)
    except _EnoughError as enough:
        lower_BLD: Tensor = enough.args[0]
        return lower_BLD
    finally:
        stack.asked = False
    raise BadInput("The frozen part of the pretrained model was not reached.", "Choose another tuning.")


# -- the lower blocks --------------------------------------------------------------------------------------------------


def _watch(stack: PretrainedStack, forms: Sequence[int]) -> None:
    """Let the lowest blocks pass on what is remembered instead of computing it, in the form of each."""
    for place, (block, form) in enumerate(zip(blocks_of(stack.model), forms, strict=False)):
        block.forward = partial(_passing, stack, block.forward, form, place == len(forms) - 1)


def _passing(
    stack: PretrainedStack, forward: Any, form: int, last: bool, hidden_BLD: Tensor, *args: Any, **told: Any
) -> Any:
    if stack.given is not None:
        passed_BLD = stack.given if last else hidden_BLD
        return (passed_BLD, *[None] * (form - 1)) if form else passed_BLD
    out = forward(hidden_BLD, *args, **told)
    if last and stack.asked:
        raise _EnoughError(out[0] if form else out)
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
