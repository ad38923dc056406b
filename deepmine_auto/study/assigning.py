"""What a worker is handed: each attempt at a trial or rerun is a row before it begins."""

from __future__ import annotations

from typing import Any

from deepmine_auto import failpoints
from deepmine_auto.messages import Assignment, Because, Kind
from deepmine_auto.storage.store import Row, StudyRow
from deepmine_auto.study.fitting import halvings_known
from deepmine_auto.study.history import History, Key
from deepmine_auto.study.seeding import of_rerun, of_trial
from deepmine_auto.study.spaces import Spaces
from deepmine_auto.study.writer import Writer


class Assigning:
    """Hands out trials and reruns of one study."""

    def __init__(
        self, study: StudyRow, spaces: Spaces, history: History, writer: Writer, rungs: tuple[int, ...]
    ) -> None:
        self.study, self.spaces, self.history, self.writer, self.rungs = study, spaces, history, writer, rungs
        self.seed = int(study.spec["seed"])

    def params(self, number: int) -> dict[str, Any]:
        """All that a trial was built from, by plain names."""
        return self.spaces.complete(number, self.history.trials[number].params)

    def trial(self, number: int, because: Because) -> Assignment:
        """Write an attempt at a trial, and return what a worker needs."""
        split, seed = of_trial(self.seed, number)
        return self._assignment(("trial", number), because, split=split, seed=seed, rungs=self.rungs)

    def rerun(self, number: int, because: Because) -> Assignment:
        """Write an attempt at a rerun, and return what a worker needs. No pruner judges it."""
        split, seed = of_rerun(self.seed, self.history.reruns[number]["repeat"])
        return self._assignment(("rerun", number), because, split=split, seed=seed, rungs=())

    def _assignment(self, key: tuple[Kind, int], because: Because, **given: Any) -> Assignment:
        kind, number = key
        attempt, params = self._attempt(key, because), self._params_of(key)
        return Assignment(
            kind=kind,
            number=number,
            attempt=attempt["attempt"],
            folder=self.study.folder,
            task=self.study.spec["task"],
            objective=self.study.spec["objective"],
            params=params,
            checkpoints=self.history.of(kind, number).checkpoints(),
            halvings=attempt["halvings"],
            **given,
        )

    def _attempt(self, key: Key, because: Because) -> Row:
        kind, number = key
        standing = self.history.of(kind, number)
        halvings = halvings_known(self.history, self._params_of, self._params_of(key)) + (because == "memory")
        row: Row = {"kind": kind, "number": number, "attempt": len(standing.attempts) + 1, "epoch": self.writer.epoch}
        row |= {"because": because, "halvings": halvings}
        self.writer.write("attempt", **row)
        standing.attempts.append({**row, "saved": None})
        failpoints.reach("after_attempt")
        return row

    def _params_of(self, key: Key) -> dict[str, Any]:
        return self.params(self.history.trial_of(key))
