"""What must hold of a study's rows by themselves: nothing is missing, nothing stands twice, every param fits its space.

One function a check. A driver that is alive, or was killed, may stand between two steps of the ledger: the last report
of a trial that runs may lack its verdict and its point on the curve, and nothing else may be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from deepmine_auto.audit.record import Record
from deepmine_auto.contracts import Pruner
from deepmine_auto.space import Space, Value, plain
from deepmine_auto.storage import tables
from deepmine_auto.storage.store import Row
from deepmine_auto.study.history import History, Key

Findings = Iterator[str]
"""One for each thing that was looked at: empty where it holds, else a sentence without a full stop."""


@dataclass(frozen=True)
class Seen:
    """What the checks look at: the rows, the study's pruner, its folder, and whether a driver is alive.

    `unavailable` says why params cannot be trained here, because a plugin is gone.
    """

    record: Record
    pruner: Pruner
    folder: Path
    driven: bool
    unavailable: Callable[[Mapping[str, Any]], str] = lambda _: ""

    @cached_property
    def history(self) -> History:
        """The rows put in order."""
        return self.record.history

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials by number."""
        return list(self.record.trials_by_number)

    def rows_of(self, name: str) -> list[Row]:
        """The rows of one of our tables."""
        return self.record.rows(tables.metadata.tables[f"{tables.PREFIX}{name}"])


def named(key: Key) -> str:
    """Say which trial or rerun is meant."""
    return f"{key[0]} {key[1]}"


def order(seen: Seen) -> Findings:
    """Reports are numbered from 1 without a gap, and each is of an attempt whose steps grow."""
    last: dict[tuple[Key, int], int] = {}
    for at, row in enumerate(seen.rows_of("reports"), 1):
        key, attempt = (row["kind"], row["number"]), row["attempt"]
        if row["seq"] != at:
            yield f"report {row['seq']} stands in the place of report {at}"
        elif attempt > len(seen.history.of(*key).attempts):
            yield f"report {at} is of an attempt {attempt} at {named(key)} that was not made"
        elif row["step"] <= last.get((key, attempt), -1):
            yield f"report {at} of {named(key)} comes after a later step"
        else:
            yield ""
        last[key, attempt] = row["step"]


def sessions(seen: Seen) -> Findings:
    """Epochs are numbered from 1 without a gap."""
    for at, row in enumerate(seen.rows_of("sessions"), 1):
        yield "" if row["epoch"] == at else f"epoch {row['epoch']} stands in the place of epoch {at}"


def attempts(seen: Seen) -> Findings:
    """The attempts at a trial or rerun are numbered from 1 without a gap, in the order of epochs that there were."""
    epochs = {row["epoch"] for row in seen.rows_of("sessions")}
    for key, standing in seen.history.standing.items():
        before = 0
        for at, row in enumerate(standing.attempts, 1):
            fits = row["attempt"] == at and before <= row["epoch"] and row["epoch"] in epochs
            yield "" if fits else f"attempt {row['attempt']} at {named(key)}, of epoch {row['epoch']}, has no place"
            before = row["epoch"]


def params(seen: Seen) -> Findings:
    """Trials are numbered from 0 without a gap, and each one's params lie in its space."""
    spaces = seen.record.spaces
    for at, trial in enumerate(seen.trials):
        odd = _outside(plain(trial.params), spaces.at(trial.number))
        if trial.number != at:
            yield f"trial {trial.number} stands in the place of trial {at}"
        else:
            yield f"trial {at} has no place in its space: {odd}" if odd else ""


def _outside(given: Mapping[str, Value], space: Space) -> str:
    """What of a trial's params does not fit, or an empty string."""
    try:
        drawn = space.draw(lambda param: given[param.name])
    except KeyError as missing:
        return f"{missing.args[0]} is missing"
    more = given.keys() - drawn.keys()
    ranges = {each.name: each.range for each in space.params}
    bad = [f"{name} is {value!r}" for name, value in drawn.items() if value not in ranges[name]]
    return f"{min(more)} is too many" if more else ", ".join(bad)


def curves(seen: Seen) -> Findings:
    """What dashboards draw is the first report of every step; with several objectives it is nothing."""
    first: dict[int, dict[int, float]] = {}
    for row in seen.rows_of("reports") if len(seen.record.study.objectives) == 1 else ():
        if row["kind"] == "trial":
            first.setdefault(row["number"], {}).setdefault(row["step"], row["value"])
    for trial in seen.trials:
        expected = list(first.get(trial.number, {}).items())
        shown = sorted(trial.intermediate_values.items())
        on_the_way = not trial.state.is_finished() and shown == sorted(expected[:-1])
        yield "" if on_the_way or shown == sorted(expected) else f"the curve of trial {trial.number} is not its reports"
