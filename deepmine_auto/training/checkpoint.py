"""Checkpoints: safetensors and JSON in a folder that gets its name only when it is whole, and is never unpickled.

A folder holds `tensors.safetensors`, `state.json`, and `manifest.json` with the sha256 of both.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from deepmine_auto import failpoints
from deepmine_auto.disk import FULL, code_of, flush, sha256
from deepmine_auto.errors import DeepmineError

T = TypeVar("T")

TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"

AWAY = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH)
"""What the system says of a disk on the network that does not answer."""

SECONDS_BETWEEN_TRIES, TRIES = 5.0, 120
"""How often such a disk is tried again: for ten minutes."""

READING_TRIES = 12
"""Reading waits a minute alone: a training that has not begun gives no sign of life."""

BEFORE = "The checkpoint before it is used."


class Damaged(DeepmineError):
    """A checkpoint is not what was written."""


def save(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write a checkpoint. An existing one of this name is replaced. Waits and raises as `saving` does."""
    for _ in saving(folder, tensors, state):
        pass


def saving(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Iterator[None]:
    """Write a checkpoint. An existing one of this name is replaced.

    While the disk is full or away it waits for up to ten minutes, says so once, and yields after each pause, for a sign
    of life. Raises OSError, or SafetensorError where tensors cannot be written; then nothing is left of it.
    """
    for left in reversed(range(TRIES)):
        try:
            _write(folder, tensors, state)
            return
        except (OSError, SafetensorError) as error:
            what = _passing(error)
            if not left or not what:
                raise
        if left == TRIES - 1:
            print(f"{folder} cannot be written: {what}. Training waits up to ten minutes for that.", file=sys.stderr)
        time.sleep(SECONDS_BETWEEN_TRIES)
        yield


def _passing(error: OSError | SafetensorError) -> str | None:
    """What is wrong, in the system's words, if it may pass."""
    code = code_of(error)
    return os.strerror(code) if code in FULL + AWAY else None


def _write(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Files, fsync, manifest, fsync, rename, and fsync of the folder that has the name."""
    _make(folder.parent)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir()
        save_file(_apart(tensors), unfinished / TENSORS)
        (unfinished / STATE).write_text(json.dumps(state))
        for name in (TENSORS, STATE):
            flush(unfinished / name)
        manifest = {name: sha256(unfinished / name) for name in (TENSORS, STATE)}
        (unfinished / MANIFEST).write_text(json.dumps(manifest))
        flush(unfinished / MANIFEST)
        flush(unfinished)
    except (OSError, SafetensorError):
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    failpoints.reach("before_checkpoint_rename")
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    failpoints.reach("after_checkpoint_rename")
    flush(folder.parent)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as the library takes them: contiguous, and none in the memory of another, where tied weights are."""
    apart, seen = dict[str, Tensor](), set[int]()
    for name, each in tensors.items():
        whole = each.detach().contiguous()
        place = whole.untyped_storage().data_ptr()
        apart[name] = whole.clone() if place in seen else whole
        seen.add(place)
    return apart


def _make(folder: Path) -> None:
    """Make a folder and those above it; a name is on the disk only when the folder that has it is."""
    if not folder.exists():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        flush(folder.parent)


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint. A disk that is away is waited for. Raises Damaged if it is missing, torn or changed."""
    return _read(folder, _loaded)


def check(folder: Path) -> None:
    """Raise Damaged if a checkpoint is missing, torn or changed. A disk that is away is waited for."""
    _read(folder, _check)


def _read(folder: Path, read: Callable[[Path], T]) -> T:
    for left in reversed(range(READING_TRIES)):
        try:
            return read(folder)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            if not left or code_of(error) not in AWAY:
                raise Damaged(f"{folder} cannot be read: {error}.", BEFORE) from error
        time.sleep(SECONDS_BETWEEN_TRIES)
    raise AssertionError("the last try returns or raises")


def _loaded(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    _check(folder)
    return load_file(folder / TENSORS), json.loads((folder / STATE).read_text())


def _check(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    for name in (TENSORS, STATE):
        if sha256(folder / name) != manifest[name]:
            raise Damaged(f"{folder / name} is not what was written.", BEFORE)


# -- an optimizer's state as tensors and plain values ----------------------------------------------------------------


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split an optimizer's state into named tensors and plain values."""
    whole = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for index, values in whole["state"].items():
        for name, value in values.items():
            (tensors if isinstance(value, Tensor) else plain)[f"{index}.{name}"] = value
    groups = [dict(group) for group in whole["param_groups"]]
    return tensors, {"values": plain, "groups": groups}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]
) -> None:
    """Give an optimizer the state that `flatten_optimizer` returned."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **plain["values"]}.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": plain["groups"]})


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix.`, without it."""
    return {name.removeprefix(f"{prefix}."): each for name, each in tensors.items() if name.startswith(f"{prefix}.")}
