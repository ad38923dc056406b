"""Ray for tests: studies of real trainings, clusters of logical machines, and what a driver leaves of its processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fakes import Desk, plain_rows
from tiny_texts import PARAMS, kept

from deepmine_auto.objectives import Objective
from deepmine_auto.space import Choice, Float, Param, Space
from deepmine_auto.storage import tables
from deepmine_auto.storage.store import StudyRow
from deepmine_auto.study.agenda import Agenda
from deepmine_auto.study.budget import Budget
from deepmine_plugins.pruners.none import KeepAll

SEARCHED = ("optimizer/adamw/lr", "model/depth")
SPACE = Space(
    (
        Param("optimizer/adamw/lr", Float(1e-4, 1e-2, log=True), {}),
        Param("model/depth", Choice(1, 2), {}),
        Param("technique/ema/use", Choice(False, True), {}),
    ),
    {name: value for name, value in PARAMS.items() if name not in SEARCHED} | {"training/epochs": 2},
)


def study_in(folder: Path, space: Space = SPACE) -> tuple[Desk, StudyRow]:
    """A study on tiny texts, ready for real trainings."""
    folder.mkdir(exist_ok=True)
    desk = Desk(folder, pruner=KeepAll())
    kept(folder / "files")
    spec = {"task": "text_classification", "objective": "log_loss", "seed": 3, "space": space.to_json()}
    spec |= {"space_name": "s", "fingerprint": "0", "sampler": "tpe", "pruner": "none"}
    return desk, desk.store.create_study("study", [Objective("log_loss", "minimize")], str(folder / "files"), spec)


def agenda_of(desk: Desk, study: StudyRow, trials: int, slots: int = 1) -> Agenda:
    """An agenda without finals."""
    agenda = Agenda(desk.ledger(study), Budget(trials=trials), slots, lambda: 0.0)
    agenda._reruns_left = list  # type: ignore[assignment]
    return agenda


def curves(desk: Desk, study: StudyRow) -> list[tuple[Any, ...]]:
    """Every report, without what a clock or a folder decides."""
    rows = desk.store.rows(tables.reports, study.id)
    return [(row["seq"], row["number"], row["step"], row["value"]) for row in rows]


def results(desk: Desk, study: StudyRow) -> list[Any]:
    """Every trial, without what a clock, a device or an attempt's folder decides."""
    measured = ("checkpoint", "latency_ms", "peak_mb")
    rows = plain_rows(desk.trials(study))
    return [{**row, "attrs": {k: v for k, v in row["attrs"].items() if k not in measured}} for row in rows]


def attempts(desk: Desk, study: StudyRow, number: int) -> list[str]:
    """Why each attempt at a trial was made."""
    return [row["because"] for row in desk.store.rows(tables.attempts, study.id) if row["number"] == number]


# -- clusters --------------------------------------------------------------------------------------------------------


@contextmanager
def cluster(mode: str, **head: Any) -> Iterator[Any]:
    """A cluster on this machine, whose control store wants a token (mode `token`) or none (`disabled`)."""
    import ray
    from ray.cluster_utils import Cluster

    from deepmine_auto.executors.ray import access

    ray.shutdown()
    with access.authenticating(mode):
        made = Cluster(initialize_head=True, head_node_args=head)
        try:
            yield made
        finally:
            ray.shutdown()
            made.shutdown()


# -- processes -------------------------------------------------------------------------------------------------------


def marked(mark: str) -> list[int]:
    """The processes that have `mark` in their environment: those of a driver that was given it, and their children."""
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdigit() and int(each.name) != os.getpid():
            try:
                if mark.encode() in (each / "environ").read_bytes():
                    found.append(int(each.name))
            except OSError:  # it ended
                continue
    return found


def until(wanted: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """Wait for something to become true, and return it."""
    end = time.monotonic() + seconds
    while not (found := wanted()):
        assert time.monotonic() < end, f"it never happened: {what}"
        time.sleep(0.05)
    return found
