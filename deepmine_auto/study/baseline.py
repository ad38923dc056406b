"""The task's classical baseline: what a search is ahead of, on the validation rows, and how long fitting it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import numpy as np

from deepmine_auto.aside import aside
from deepmine_auto.contracts import Task
from deepmine_auto.data import kept
from deepmine_auto.data.rows import Rows
from deepmine_auto.host import Host
from deepmine_auto.model.assemble import task_of
from deepmine_auto.storage.store import StudyRow

GUESSED_SECONDS = 5.0

MOST_ROWS = 50_000
"""A baseline is fitted on no more rows than these: it must not take longer than the search."""


class Baseline:
    """The baseline's score on the validation rows, computed aside, and how long fitting it takes."""

    def __init__(self, fit: Callable[[], Future[tuple[float, float]]]) -> None:
        self._fit = fit
        self._future: Future[tuple[float, float]] | None = None
        self._begun = 0.0

    def begin(self) -> None:
        """Fit it, unless that has begun. Not before the first trial trains, which it would hold up by its imports."""
        if self._future is None:
            self._begun, self._future = time.monotonic(), self._fit()

    def value(self) -> float | None:
        """Its score, or None while it is not known. Raises what fitting it raised: the finals would fail on it too."""
        return self._future.result()[0] if self._future and self._future.done() else None

    def seconds(self) -> float:
        """How long fitting it takes; while that is not known, a guess, or as long as it has taken. Raises what fitting
        it raised."""
        if self._future and self._future.done():
            return self._future.result()[1]
        return max(GUESSED_SECONDS, time.monotonic() - self._begun if self._future else 0.0)


def beside(study: StudyRow, host: Host) -> Baseline:
    """A baseline that is fitted beside the search once it is begun."""
    return Baseline(partial(aside, partial(_fitted, study, host)))


def _fitted(study: StudyRow, host: Host) -> tuple[float, float]:
    start, folder = time.monotonic(), Path(study.folder)
    task = task_of(study.spec["task"], {}, host)
    train, validation = (kept.rows_of(folder, kept.SEARCH, part) for part in ("train", "validation"))
    some = rows_to_fit(task, train)
    prepared = task.prepare(train)
    scores = task.scores(task.baseline(some, validation, prepared), prepared.targets(validation))
    return scores[study.spec["objective"]], time.monotonic() - start


# -- which rows ------------------------------------------------------------------------------------------------------


def rows_to_fit(task: Task, train: Rows, most: int = MOST_ROWS) -> Rows:
    """The training rows, or so many of them by chance, with one at least of each stratum."""
    return train if len(train) <= most else train.take(sorted(_of_all_strata(task.strata(train))[:most]))


def name_of(task: type[Task] | Task, rows: int) -> str:
    """The baseline in words where there are so many training rows, with the number of its own where it has fewer."""
    return task.baseline_name if rows <= MOST_ROWS else f"{task.baseline_name} of {MOST_ROWS:,} rows"


def _of_all_strata(strata: Sequence[Hashable]) -> list[int]:
    """All rows in a random order, one of each stratum first: a baseline of a part of them must know every label."""
    order = np.random.default_rng(0).permutation(len(strata)).tolist()
    firsts = {strata[at]: at for at in order}.values()
    return list(dict.fromkeys([*firsts, *order]))
