"""What a stock optuna-dashboard shows of a study beside its trials: notes, artifacts, and attributes of a sane size.

All of it is decoration: it is written through the ledger's own engine, so that an overtaken driver writes none, and
where it cannot be written, the search goes on without. Optuna's layout is written here, and not by optuna-dashboard,
which need not be where the search runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import wraps
from mimetypes import guess_type
from pathlib import Path
from typing import Any, ParamSpec
from uuid import NAMESPACE_URL, uuid5

import numpy as np
from optuna.artifacts import ArtifactMeta
from optuna.trial import FrozenTrial

from deepmine_auto.storage.away import is_away
from deepmine_auto.storage.store import Store, StudyRow
from deepmine_auto.study.confusion import confusion_png

ARTIFACTS = "artifacts"
"""The folder in the study's folder that holds what is attached; `optuna-dashboard --artifact-dir` takes it too."""

MOST_BYTES = 64 * 1024
"""Of one text."""

MOST_BYTES_OF_TRIAL = 1024 * 1024
"""Of all texts of a trial together: a dashboard reads those of every trial at once."""

PIECE = 2045
"""Characters of a note in one row, as optuna-dashboard cuts them."""

P = ParamSpec("P")


def _decoration(show: Callable[P, None]) -> Callable[P, bool]:
    """Let a function say whether it could show something, where it cannot for reasons that may disturb no search."""

    @wraps(show)
    def shown(*args: P.args, **kwargs: P.kwargs) -> bool:
        try:
            show(*args, **kwargs)
        except (OSError, ImportError):
            return False
        except Exception as error:
            if not is_away(error):
                raise
            return False
        return True

    return shown


# -- notes -------------------------------------------------------------------------------------------------------------


@_decoration
def note_study(store: Store, study: StudyRow, text: str) -> None:
    """Write the study's note, in Markdown, over the one before. Returns False where it could not be written."""
    _write_note(store, study, "dashboard:", text)


@_decoration
def note_trial(store: Store, study: StudyRow, trial: FrozenTrial, text: str) -> None:
    """Write the note of a trial, whether or not it has ended. Returns False where it could not be written."""
    _write_note(store, study, f"dashboard:{trial._trial_id}:", text)


def _write_note(store: Store, study: StudyRow, prefix: str, text: str) -> None:
    version, piece = f"{prefix}note_ver", f"{prefix}note_str:"
    there = store.storage.get_study_system_attrs(study.id)
    pieces = {f"{piece}{at}": each for at, each in enumerate(_pieces(cut(text, MOST_BYTES)))}
    left = {key: "" for key in there if key.startswith(piece) and key not in pieces}
    wanted = pieces | left
    if all(there.get(key) == each for key, each in wanted.items()):
        return
    for key, each in {**wanted, version: there.get(version, 0) + 1}.items():
        store.storage.set_study_system_attr(study.id, key, each)


def _pieces(text: str) -> Iterator[str]:
    return (text[at : at + PIECE] for at in range(0, len(text), PIECE))


# -- artifacts ---------------------------------------------------------------------------------------------------------


@_decoration
def attach(store: Store, study: StudyRow, name: str, content: bytes, trial: FrozenTrial | None = None) -> None:
    """Keep a file with the study, or with one of its trials, also an ended one; attached again, it is written over.

    Returns False where it could not be written.
    """
    _attach(store, study, name, content, trial)


@_decoration
def attach_confusion(
    store: Store,
    study: StudyRow,
    trial: FrozenTrial,
    labels: Sequence[str],
    targets_N: np.ndarray,
    predicted_N: np.ndarray,
) -> None:
    """Attach a picture of how often each true class was predicted as each class, to a trial and to the study.

    Returns False where it could not be written, or where Pillow is missing.
    """
    picture = confusion_png(labels, targets_N, predicted_N)
    for each in (trial, None):
        _attach(store, study, "confusion.png", picture, each)


def _attach(store: Store, study: StudyRow, name: str, content: bytes, trial: FrozenTrial | None) -> None:
    owner = "" if trial is None else f"{trial._trial_id}"
    identity = str(uuid5(NAMESPACE_URL, f"{study.name}/{owner}/{name}"))
    file = Path(study.folder) / ARTIFACTS / identity
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    kind, encoding = guess_type(name)
    meta = ArtifactMeta(identity, name, kind or "application/octet-stream", encoding)
    # Optuna refuses an attribute of an ended trial; the dashboard reads those of its trials from the study too
    key = f"dashboard:artifacts:{owner}:{identity}" if owner else f"artifacts:{identity}"
    store.storage.set_study_system_attr(study.id, key, json.dumps(asdict(meta)))


# -- attributes --------------------------------------------------------------------------------------------------------


def capped(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a trial with each text cut to 64 KiB, and the later ones to what 1 MiB for all leaves them."""
    left, kept = MOST_BYTES_OF_TRIAL, {}
    for name, value in attrs.items():
        kept[name] = cut(value, min(MOST_BYTES, left)) if isinstance(value, str) else value
        left -= len(kept[name].encode()) if isinstance(value, str) else 0
    return kept


def cut(text: str, most: int) -> str:
    """The text, or as much of its beginning as `most` bytes of UTF-8 hold; what UTF-8 cannot hold is a question mark.

    >>> cut("naïve", 3)
    'na'
    """
    return text.encode(errors="replace")[:most].decode(errors="ignore")
