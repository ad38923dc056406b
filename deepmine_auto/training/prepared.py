"""What is fitted once for a split and then shared: tokenizer and token columns, in a folder that workers map.

The first worker that needs it makes it under a name of its own and renames it; the others wait, and find it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepmine_auto.contracts import Backbone, Prepared, Task
from deepmine_auto.data.kept import extra_of, rows_of
from deepmine_auto.data.rows import Rows
from deepmine_auto.disk import file_lock, flush
from deepmine_auto.training.batching import Columns

PARTS = ("train", "validation")
UNLABELLED, PARAPHRASES = "unlabelled.safetensors", "paraphrases.safetensors"


class Ready(NamedTuple):
    """A split, ready for training: what the task fitted on its training rows, and both parts as token ids; where the
    study has such, inputs without labels, and paraphrases, whose targets are the training rows that they stand for."""

    prepared: Prepared
    train: Columns
    validation: Columns
    unlabelled: Columns | None = None
    paraphrases: Columns | None = None


def prepared_by(task: Task, backbone: Backbone, train: Rows) -> Prepared:
    """Fit what there is to fit on training rows; a pretrained backbone brings the tokenizer. Raises BadInput."""
    original = backbone.original()
    return task.prepare(train) if original is None else task.prepare_for(train, original)


def ready(folder: Path, split: str, task: Task, backbone: Backbone) -> Ready:
    """Load the prepared split of a study's folder, and make it if nobody has yet."""
    place = folder / "prepared" / f"{split}-{_key(task, backbone)}"
    if not place.exists():
        _make_once(place, folder, split, task, backbone)
    found = place.stat()
    return _loaded(place, task, (found.st_ino, found.st_mtime_ns))


@lru_cache(maxsize=8)
def _loaded(place: Path, task: Task, made: tuple[int, int]) -> Ready:
    del made  # where a study was deleted, another may have its folder
    train, validation = (Columns.load(place / f"{part}.safetensors") for part in PARTS)
    extra = (place / each for each in (UNLABELLED, PARAPHRASES))
    return Ready(
        task.load(place), train, validation, *(Columns.load(each) if each.exists() else None for each in extra)
    )


def _make_once(place: Path, folder: Path, split: str, task: Task, backbone: Backbone) -> None:
    place.parent.mkdir(exist_ok=True)
    with file_lock(place.with_suffix(".lock")):
        if not place.exists():
            _make(place, folder, split, task, backbone)


def _key(task: Task, backbone: Backbone) -> str:
    """One text for all that is fitted alike; backbones that bring no tokenizer share what the task fitted."""
    plugins = (task, backbone) if backbone.pretrained else (task,)
    told = [_fitted_by(each) for each in plugins]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


def _fitted_by(plugin: Task | Backbone) -> list[Any]:
    return [plugin.name, {name: value for name, value in plugin.params().items() if name in plugin.fitted_by}]


def _make(place: Path, folder: Path, split: str, task: Task, backbone: Backbone) -> None:
    unfinished = place.with_name(f".{place.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    prepared = prepared_by(task, backbone, rows_of(folder, split, "train"))
    prepared.save(unfinished)
    for part in PARTS:
        rows = rows_of(folder, split, part)
        Columns.of(prepared.encode(rows.inputs), prepared.targets(rows)).save(unfinished / f"{part}.safetensors")
    for name, each in _extra(prepared, folder, split).items():
        each.save(unfinished / name)
    for path in (*unfinished.rglob("*"), unfinished):  # a folder that has its name is never made again
        flush(path)
    unfinished.rename(place)
    flush(place.parent)


def _extra(prepared: Prepared, folder: Path, split: str) -> dict[str, Columns]:
    """What the study has beside its rows; of paraphrases, those of this split's training rows."""
    extra, found = extra_of(folder), dict[str, Columns]()
    if inputs := extra.unlabelled:
        found[UNLABELLED] = Columns.of(prepared.encode(inputs))
    row_of = {text: row for row, text in enumerate(rows_of(folder, split, "train").inputs)} if extra.paraphrases else {}
    if pairs := [(row_of[text], words) for text, words in extra.paraphrases if text in row_of]:
        rows, reworded = zip(*pairs, strict=True)
        found[PARAPHRASES] = Columns.of(prepared.encode(reworded), np.array(rows, np.int64))
    return found
