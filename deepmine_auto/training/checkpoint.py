"""Checkpoints: safetensors and JSON in a folder that gets its name only when it is whole, and is never unpickled.

A folder holds `tensors.safetensors`, `state.json`, and `manifest.json` with the sha256 of both.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from deepmine_auto.errors import DeepmineError

TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"


class Damaged(DeepmineError):
    """A checkpoint is not what was written."""


def save(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write a checkpoint: files, fsync, manifest, fsync, rename. An existing one of this name is replaced."""
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    save_file({name: each.detach().contiguous() for name, each in tensors.items()}, unfinished / TENSORS)
    (unfinished / STATE).write_text(json.dumps(state))
    manifest = {name: sha256(unfinished / name) for name in (TENSORS, STATE)}
    (unfinished / MANIFEST).write_text(json.dumps(manifest))
    for name in (TENSORS, STATE, MANIFEST):
        flush(unfinished / name)
    flush(unfinished)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    flush(folder.parent)


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint. Raises Damaged if it is missing, torn or changed."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        for name in (TENSORS, STATE):
            if sha256(folder / name) != manifest[name]:
                raise Damaged(f"{folder / name} is not what was written.", "The checkpoint before it is used.")
        return load_file(folder / TENSORS), json.loads((folder / STATE).read_text())
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise Damaged(f"{folder} cannot be read: {error}.", "The checkpoint before it is used.") from error


def sha256(file: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Ask the operating system to bring a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
