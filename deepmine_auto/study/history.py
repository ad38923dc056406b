"""What the rows of a study say, in memory: read once at the start, then kept up by the one who writes."""

from __future__ import annotations

from typing import Any, Protocol

from optuna.trial import FrozenTrial
from sqlalchemy import Table

from deepmine_auto.contracts import Direction, Report
from deepmine_auto.messages import Because
from deepmine_auto.storage import tables
from deepmine_auto.storage.store import Row, StudyRow
from deepmine_auto.study.causes import AGAIN
from deepmine_auto.study.checkpoints import Standing
from deepmine_auto.study.pruning import curve

Key = tuple[str, int]

SEARCH_ENDED, GIVEN_UP = "search ended", "given up"
"""Events after which no new trial begins: the finals follow, or the driver ends."""


class Rows(Protocol):
    """Where rows are read: a database, or a record of a study."""

    def trials(self, study_id: int) -> list[FrozenTrial]:
        """All trials by number."""

    def rows(self, table: Table, study_id: int) -> list[Row]:
        """All rows of a table in the order of its key."""


class History:
    """Trials by number, reruns by number, the standing of each, and the reports as a pruner sees them."""

    def __init__(self, store: Rows, study: StudyRow) -> None:
        self.study = study
        self.trials: dict[int, FrozenTrial] = {each.number: each for each in store.trials(study.id)}
        self.reruns: dict[int, Row] = {row["number"]: row for row in store.rows(tables.reruns, study.id)}
        self.standing: dict[Key, Standing] = {}
        reports = store.rows(tables.reports, study.id)
        for row in reports:
            self.of(row["kind"], row["number"]).reports.append(row)
        for row in store.rows(tables.attempts, study.id):
            self.of(row["kind"], row["number"]).attempts.append(row)
        self.judged: set[int] = set()
        for row in store.rows(tables.verdicts, study.id):
            self.note_verdict(row)
        self.reports: list[Report] = curve(reports, study.objectives, study.limits)
        self.seq: int = max((row["seq"] for row in reports), default=0)
        events = store.rows(tables.events, study.id)
        self.event: int = max((row["id"] for row in events), default=0)
        self.opened: int = 0
        self.search_ended = False  # a driver has said so, and nobody has changed budget or search space since
        self.failures_told = -1  # the user knows of what had failed when this was the newest trial
        for row in events:
            self.note_event(row)

    @property
    def direction(self) -> Direction:
        """The direction of the first objective."""
        return self.study.direction

    def of(self, kind: str, number: int) -> Standing:
        """The standing of a trial or rerun."""
        return self.standing.setdefault((kind, number), Standing())

    def curve(self, number: int) -> dict[int, float]:
        """A trial's values by the share of its steps; of a step that was reported twice the first counts."""
        return {row["share"]: row["value"] for row in reversed(self.of("trial", number).reports)}

    def trial_of(self, key: Key) -> int:
        """The number of a trial, or of the one that is trained again."""
        kind, number = key
        return number if kind == "trial" else int(self.reruns[number]["trial"])

    def note_verdict(self, row: Row) -> None:
        """Remember a verdict."""
        self.judged.add(row["seq"])
        if not row["keep"]:
            self.of("trial", row["number"]).stopped = row["cause"]

    def note_event(self, row: Row) -> None:
        """Remember an event that decides something."""
        self.opened += row["kind"] == "test opened"
        if row["kind"] == "space":
            self.search_ended = False
        elif row["kind"] in (SEARCH_ENDED, GIVEN_UP) and row["trial"] is not None:  # older drivers wrote none
            self.failures_told = row["trial"]
            reopened = row["id"] <= self.study.spec.get("reopened_after", 0)
            self.search_ended = row["kind"] == SEARCH_ENDED and not reopened

    def running(self, kind: str, number: int) -> bool:
        """Whether a trial or rerun has no end yet."""
        if kind == "trial":
            return not self.trials[number].state.is_finished()
        return bool(self.reruns[number]["state"] == "RUNNING")

    def unfinished(self) -> list[Key]:
        """Trials and reruns that have no end yet."""
        keys = [*(("trial", each) for each in self.trials), *(("rerun", each) for each in self.reruns)]
        return [key for key in keys if self.running(*key)]

    def may_try_again(self, key: Key, because: Because) -> bool:
        """Whether a trial may be handed out once more for this reason."""
        again = AGAIN[because]
        return sum(row["because"] in again.counted for row in self.of(*key).attempts) < again.most

    def best_values(self) -> dict[int, float]:
        """The best value of each trial that has reported."""
        best = {number: each.best(self.direction) for (kind, number), each in self.standing.items() if kind == "trial"}
        return {number: row["value"] for number, row in best.items() if row}

    def metrics_at_best(self, number: int, kind: str = "trial") -> dict[str, Any]:
        """The metrics of the best report of a trial or rerun; empty where it never reported."""
        best = self.of(kind, number).best(self.direction)
        return dict(best["metrics"]) if best else {}
