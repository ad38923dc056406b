"""Which checkpoints count: those that rows name and a decision may still need. The others are deleted."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from optuna.trial import FrozenTrial

from deepmine_auto.contracts import Direction
from deepmine_auto.messages import Cause, attempt_folder
from deepmine_auto.storage.store import Row
from deepmine_auto.study.finals import finalists
from deepmine_auto.study.pruning import oriented

LAST_KEPT = 2


@dataclass
class Standing:
    """What the rows say of a trial or rerun: its attempts, its reports, and the verdict that stopped it."""

    attempts: list[Row] = field(default_factory=list)
    reports: list[Row] = field(default_factory=list)
    stopped: Cause | None = None

    def checkpoints(self) -> tuple[str, ...]:
        """What rows name, newest first; the database decides which checkpoint counts, not the disk."""
        reported = [each["checkpoint"] for each in self.reports if each["checkpoint"]]
        saved = [each["saved"] for each in self.attempts if each["saved"]]
        return tuple(sorted({*reported, *saved}, key=_step_and_attempt, reverse=True))

    def best(self, direction: Direction) -> Row | None:
        """Its best report. Of a step that was reported twice the later one counts: that went on from a checkpoint
        before it, maybe because the one that the first names could not be read."""
        newest = {row["step"]: row for row in self.reports}
        return max(newest.values(), key=lambda row: oriented(row["value"], direction), default=None)


def _step_and_attempt(checkpoint: str) -> tuple[str, int]:
    attempt, _, step = checkpoint.rpartition("/step-")
    return step, int(attempt.rpartition("-")[2])


Standings = Mapping[tuple[str, int], Standing]


def checkpoints_to_keep(
    trials: Mapping[int, FrozenTrial],
    reruns: Mapping[int, Row],
    standings: Standings,
    direction: Direction,
    able_here: Callable[[int], bool] = lambda _: True,
) -> set[str]:
    """The last two and the best of whatever runs, the best of every rerun, and of the trials that are finalists now:
    among all, and among those that can be trained again here."""
    keep: set[str] = set()
    best = {key: row for key, standing in standings.items() if (row := standing.best(direction))}
    for key, standing in standings.items():
        named = {best[key]["best_checkpoint"]} if key in best else set()
        if _runs(*key, trials, reruns):
            keep |= named.union(standing.checkpoints()[:LAST_KEPT])  # it may have been saved before it reported
        elif key[0] == "rerun":
            keep |= named
    values = {number: row["value"] for (kind, number), row in best.items() if kind == "trial"}
    able = partial(finalists, trials.values(), values, direction)
    return keep | {best["trial", each]["best_checkpoint"] for each in {*able(), *able(able_here)}}


def being_written(trials: Mapping[int, FrozenTrial], reruns: Mapping[int, Row], standings: Standings) -> set[str]:
    """The folders to which workers add checkpoints now: the last attempt of whatever runs."""
    running = (key for key in standings if _runs(*key, trials, reruns))
    return {attempt_folder(*key, len(standings[key].attempts)) for key in running}


def _runs(kind: str, number: int, trials: Mapping[int, FrozenTrial], reruns: Mapping[int, Row]) -> bool:
    if kind == "trial":
        return number in trials and not trials[number].state.is_finished()
    return number in reruns and bool(reruns[number]["state"] == "RUNNING")


def sweep(folder: Path, keep: set[str], written: set[str]) -> None:
    """Delete what is not kept, and folders that are empty then, so that the next sweep need not look at them. Where a
    worker adds checkpoints, those after the last kept one stay: a report that names them is on the way."""
    needed = {str(Path(each).parent) for each in written}  # a worker that makes the folder below must find it there
    for attempt in (folder / "checkpoints").glob("*/attempt-*"):
        name = str(attempt.relative_to(folder))
        kept = {Path(each).name for each in keep if str(Path(each).parent) == name}
        for step in attempt.glob("*step-*"):  # .step-* is half written
            newer = name in written and step.name.lstrip(".") > max(kept, default="")
            if step.name not in kept and not newer:
                shutil.rmtree(step, ignore_errors=True)
        if name not in written:
            with suppress(OSError):  # what is not empty stays
                attempt.rmdir()
                if str(attempt.parent.relative_to(folder)) not in needed:
                    attempt.parent.rmdir()
