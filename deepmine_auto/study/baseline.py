"""The task's classical baseline on the validation rows: what a search is ahead of, and how long fitting it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from deepmine_auto.data import kept
from deepmine_auto.host import Host
from deepmine_auto.model.assemble import task_of
from deepmine_auto.storage.store import StudyRow

GUESSED_SECONDS = 5.0


class Baseline:
    """The baseline's score on the validation rows, computed in a thread, and how long fitting it takes."""

    def __init__(self, fit: Callable[[], Future[tuple[float, float]]]) -> None:
        self._fit = fit
        self._future: Future[tuple[float, float]] | None = None

    def begin(self) -> None:
        """Fit it, unless that has begun. Not before the first trial trains, which it would hold up by its imports."""
        self._future = self._future or self._fit()

    def value(self) -> float | None:
        """Its score, or None while it is not known. Raises what fitting it raised: the finals would fail on it too."""
        return self._future.result()[0] if self._future and self._future.done() else None

    def seconds(self) -> float:
        """How long fitting it takes; a guess while it is not known. Raises what fitting it raised."""
        return self._future.result()[1] if self._future and self._future.done() else GUESSED_SECONDS


@contextmanager
def beside(study: StudyRow, host: Host) -> Iterator[Baseline]:
    """A baseline that is fitted beside the search once it is begun; waits for it at the end."""
    with ThreadPoolExecutor(1) as pool:
        yield Baseline(partial(pool.submit, _fit_baseline, study, host))


def _fit_baseline(study: StudyRow, host: Host) -> tuple[float, float]:
    start, folder = time.monotonic(), Path(study.folder)
    task = task_of(study.spec["task"], {}, host)
    train, validation = (kept.rows_of(folder, kept.SEARCH, part) for part in ("train", "validation"))
    prepared = task.prepare(train)
    scores = task.scores(task.baseline(train, validation, prepared), prepared.targets(validation))
    return scores[study.spec["objective"]], time.monotonic() - start
