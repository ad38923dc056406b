"""What is fitted once for a split and then shared: tokenizer and token columns, in a folder that workers map.

The first worker that needs it makes it under a name of its own and renames it; the others wait, and find it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from deepmine_auto.contracts import Prepared, Task
from deepmine_auto.data.kept import rows_of
from deepmine_auto.training.batching import Columns

PARTS = ("train", "validation")


class Ready(NamedTuple):
    """A split, ready for training: what the task fitted on its training rows, and both parts as token ids."""

    prepared: Prepared
    train: Columns
    validation: Columns


@lru_cache(maxsize=8)
def ready(folder: Path, split: str, task: Task) -> Ready:
    """Load the prepared split of a study's folder, and make it if nobody has yet."""
    place = folder / "prepared" / f"{split}-{_key(task)}"
    if not place.exists():
        _make_once(place, folder, split, task)
    return Ready(task.load(place), *(Columns.load(place / f"{part}.safetensors") for part in PARTS))


def _make_once(place: Path, folder: Path, split: str, task: Task) -> None:
    place.parent.mkdir(exist_ok=True)
    with open(place.with_suffix(".lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            _make(place, folder, split, task)


def _key(task: Task) -> str:
    fitted_by = {name: value for name, value in task.params().items() if name in task.fitted_by}
    return hashlib.sha256(json.dumps([task.name, fitted_by], sort_keys=True).encode()).hexdigest()[:12]


def _make(place: Path, folder: Path, split: str, task: Task) -> None:
    unfinished = place.with_name(f".{place.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    prepared = task.prepare(rows_of(folder, split, "train"))
    prepared.save(unfinished)
    for part in PARTS:
        rows = rows_of(folder, split, part)
        Columns.of(prepared.encode(rows.inputs), prepared.targets(rows)).save(unfinished / f"{part}.safetensors")
    unfinished.rename(place)
