"""Which checkpoints count: those that rows name and a decision may still need. The others are deleted."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from optuna.trial import FrozenTrial

from deepmine_auto.contracts import Direction
from deepmine_auto.executors.messages import Cause
from deepmine_auto.storage.store import Row
from deepmine_auto.study.pruning import oriented

LAST_KEPT = 2
BEST_FINISHED_KEPT = 3


@dataclass
class Standing:
    """What the rows say of a trial or rerun: how often it was begun, its reports, and the verdict that stopped it."""

    attempts: int = 0
    reports: list[Row] = field(default_factory=list)
    stopped: Cause | None = None

    def checkpoints(self) -> tuple[str, ...]:
        """What its reports name, newest first; the database decides which checkpoint counts, not the disk."""
        return tuple(each["checkpoint"] for each in reversed(self.reports) if each["checkpoint"])

    def best(self, direction: Direction) -> Row | None:
        """Its best report."""
        return max(self.reports, key=lambda row: oriented(row["value"], direction), default=None)


Standings = Mapping[tuple[str, int], Standing]


def checkpoints_to_keep(
    trials: Mapping[int, FrozenTrial], reruns: Mapping[int, Row], standings: Standings, direction: Direction
) -> set[str]:
    """The last two and the best of whatever runs, the best of every rerun, and of the three best finished trials."""
    keep: set[str] = set()
    finished = []
    for (kind, number), standing in standings.items():
        runs = not trials[number].state.is_finished() if kind == "trial" else reruns[number]["state"] == "RUNNING"
        best = standing.best(direction)
        named = {best["best_checkpoint"]} if best else set()
        if runs:
            keep |= {*named, *standing.checkpoints()[:LAST_KEPT]}
        elif kind == "rerun":
            keep |= named
        elif best:
            finished.append((oriented(best["value"], direction), -number, best["best_checkpoint"]))
    return keep | {path for _, _, path in sorted(finished, reverse=True)[:BEST_FINISHED_KEPT]}


def sweep(folder: Path, keep: set[str]) -> None:
    """Delete what is not kept. Where a kept one is of the same attempt, a newer one stays: its report is on the way."""
    for step in (folder / "checkpoints").glob("*/attempt-*/step-*"):
        attempt = step.parent.relative_to(folder)
        kept = [Path(each).name for each in keep if Path(each).parent == attempt]
        if not kept or (step.name not in kept and step.name < max(kept)):
            shutil.rmtree(step, ignore_errors=True)
