"""The rows as a study's folder keeps them: what training may read, and, in a file of its own, the locked test.

Nothing but the database and this folder is needed to resume, so a study outlives the user's files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepmine_auto.data.rows import NOTHING_MORE, Extra, Rows
from deepmine_auto.data.split import Split
from deepmine_auto.disk import flush

OPEN, LOCKED, SPLITS = "rows.json", "test.json", "splits.json"
EXTRA = {each: f"{each}.json" for each in Extra._fields}
SEARCH = "search"
"""The split that the trials use; the reruns have others."""

REFIT = "refit"
"""The split whose training rows are those of training and validation; nothing can be judged by its validation rows."""


def keep(folder: Path, rows: Rows, splits: Mapping[str, Split], extra: Extra = NOTHING_MORE) -> None:
    """Write rows and splits, and what there is beside them; every split has the same test rows. Of rows that are in no
    part nothing is written: they may be another study's test."""
    train, validation, test = splits[SEARCH]
    visible = sorted({*train, *validation})
    place = {row: at for at, row in enumerate(visible)}
    named = {name: {"train": [place[row] for row in each.train], "validation": [place[row] for row in each.validation]}
             for name, each in splits.items()}  # fmt: skip
    _write(folder / OPEN, _plain(rows.take(visible)))
    _write(folder / LOCKED, _plain(rows.take(test)))
    _write(folder / SPLITS, named)
    for name, each in extra._asdict().items():
        if each:
            _write(folder / EXTRA[name], list(each))
    flush(folder)


def rows_of(folder: Path, split: str, part: str) -> Rows:
    """The rows of `train` or `validation` in a split."""
    rows, splits = _rows(folder / OPEN), _read(folder / SPLITS)
    if split == REFIT:
        splits[REFIT] = {**splits[SEARCH], "train": range(len(rows))}
    indices: Sequence[int] = splits[split][part]
    return rows.take(indices)


def extra_of(folder: Path) -> Extra:
    """What there is beside the rows; empty where the user gave nothing."""
    files = {name: folder / file for name, file in EXTRA.items()}
    return Extra(**{name: _read(file) for name, file in files.items() if file.exists()})


def test_rows(folder: Path) -> Rows:
    """Open the locked test. Only the finals do, and each opening is an event."""
    return _rows(folder / LOCKED)


def digest(folder: Path) -> str:
    """The sha256, in hex, of all that is kept. Nothing is looked at, so that this opens no test."""
    files = [folder / name for name in (OPEN, LOCKED, SPLITS)]
    files += [folder / each for each in EXTRA.values() if (folder / each).exists()]
    hashes = [hashlib.sha256(each.read_bytes()).hexdigest() for each in files]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _plain(rows: Rows) -> dict[str, Any]:
    return {"inputs": list(rows.inputs), "labels": list(rows.labels)}


def _rows(file: Path) -> Rows:
    plain = _read(file)
    return Rows(plain["inputs"], plain["labels"])


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _write(file: Path, plain: Any) -> None:
    file.write_text(json.dumps(plain, ensure_ascii=False), encoding="utf-8")
    flush(file)  # the study's row, which comes next, says what is in it
