"""A study without torch: a small space, a training that costs nothing, and a driver that can be killed anywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from deepmine_auto.executors import inline
from deepmine_auto.messages import Assignment, Ended, Message, Reported, attempt_folder
from deepmine_auto.objectives import Objective
from deepmine_auto.space import Choice, Float, Param, Space
from deepmine_auto.storage.engine import Fence
from deepmine_auto.storage.place import Place
from deepmine_auto.storage.sqlite import SqliteFile
from deepmine_auto.storage.store import Store, StudyRow
from deepmine_auto.study.agenda import Agenda
from deepmine_auto.study.budget import Budget
from deepmine_auto.study.ledger import Ledger
from deepmine_plugins.pruners.asha import Asha
from deepmine_plugins.samplers.tpe import Tpe

SIX = Budget(trials=6)
STEPS = (1, 3, 6, 9)
SPACE = Space(
    (
        Param("attention/kind", Choice("good", "bad"), {}),
        Param("attention/good/width", Choice(1, 2, 4), {"attention/kind": ("good",)}),
        Param("model/kind", Choice("encoder", "other"), {}),
        Param("optimizer/kind", Choice("adamw"), {}),
        Param("optimizer/adamw/lr", Float(1e-4, 1e-1, log=True), {}),
        Param("technique/ema/use", Choice(False, True), {}),
    ),
    {"training/epochs": 3},
)

Fake = Callable[[Assignment, Any], Iterator[Message]]


class Killed(BaseException):
    """The driver is gone; nothing may catch it."""


def value_at(assignment: Assignment, step: int) -> float:
    """A value that params, seed and step decide, growing with the step."""
    text = f"{sorted(assignment.params.items())} {assignment.seed}"
    height = int(hashlib.sha256(text.encode()).hexdigest()[:6], 16) / 0xFFFFFF
    return round(height * step / STEPS[-1] + (step % 2) / 50, 6)


def begun_at(assignment: Assignment) -> int:
    """The step of the newest checkpoint that the assignment names, or 0."""
    return int(assignment.checkpoints[0].rpartition("-")[2]) if assignment.checkpoints else 0


def quick(assignment: Assignment, host: Any) -> Iterator[Message]:
    """Report four times, with a checkpoint at steps 3 and 9, and end; go on from the checkpoint that is named."""
    best = max((value_at(assignment, each), -each) for each in STEPS)
    for step in STEPS:
        if step > begun_at(assignment):
            path = f"{attempt_folder(*assignment.key, assignment.attempt)}/step-{step:07d}"
            value = value_at(assignment, step)
            yield Reported(
                step, round(1000 * step / 9), value, {"f": value}, path if step in (3, 9) else None, path, step
            )
    yield Ended("budget", best[0], -best[1], f"best of {assignment.number}", facts={"seconds": 9.0})


def ending(cause: str, *, after: int = 2, **more: Any) -> Fake:
    """A training that ends of a cause after some reports."""

    def messages(assignment: Assignment, host: Any) -> Iterator[Message]:
        *reports, end = quick(assignment, host)
        yield from reports[:after]
        yield Ended(cause, end.value, end.step, end.checkpoint if after else None, **more)

    return messages


@dataclass
class Desk:
    """One database with studies in it, and the drivers that work on them one after the other."""

    folder: Path
    fence: Fence = field(default_factory=Fence)
    sampler: Any = field(default_factory=Tpe)
    pruner: Any = field(default_factory=Asha)
    events: list[tuple[str, str, int | None]] = field(default_factory=list)
    place: Place | None = None

    def __post_init__(self) -> None:
        self.place = self.place or SqliteFile(self.folder / "studies.db")
        self.store = Store(self.place.open_writer(self.fence))

    def begin(self, name: str = "study", space: Space = SPACE, direction: str = "maximize", seed: int = 7) -> StudyRow:
        """Write a new study."""
        spec = {
            "task": "t",
            "objective": "f",
            "seed": seed,
            "space": space.to_json(),
            "space_name": "s",
            "fingerprint": "0",
        }
        (self.folder / name).mkdir()
        self.free()
        return self.store.create_study(name, [Objective("f", direction)], str(self.folder / name), spec)

    def free(self) -> None:
        """Forget the driver before, as its process's end would."""
        self.fence.study_id = self.fence.epoch = None

    def ledger(self, study: StudyRow) -> Ledger:
        """A new driver's ledger, from nothing but the database."""
        self.free()
        return Ledger(
            self.store, study, self.fence, (self.sampler, self.pruner), lambda *each: self.events.append(each)
        )

    def agenda(self, study: StudyRow, budget: Budget = SIX, slots: int = 1) -> Agenda:
        """A new driver's agenda."""
        return Agenda(self.ledger(study), budget, slots, lambda: 5.0)

    def work(self, study: StudyRow, budget: Budget = SIX, training: Fake = quick) -> Agenda:
        """Run a study to its end, with a training in the place of the real one."""
        agenda = self.agenda(study, budget)
        with training_is(training):
            inline.run(agenda, None, lambda: None)
        return agenda

    def begin_and_work(self, name: str) -> StudyRow:
        """A study of five trials that nothing disturbed."""
        study = self.begin(name)
        self.work(study, Budget(trials=5))
        return study

    def trials(self, study: StudyRow) -> list[FrozenTrial]:
        """The rows of a study."""
        return self.store.trials(study.id)


@contextmanager
def training_is(training: Fake) -> Iterator[None]:
    """Put another training in the inline executor's place for a while."""
    before = inline.messages
    inline.messages = training
    try:
        yield
    finally:
        inline.messages = before


class Bomb(Fence):
    """A fence that kills its driver at the n-th transaction."""

    left: int | None = None

    def check(self, connection: Any) -> None:
        """Count down."""
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed
        super().check(connection)


def told(trials: list[FrozenTrial]) -> list[Mapping[str, Any]]:
    """What two runs of one study must agree in."""
    return [
        {
            "number": each.number,
            "params": each.params,
            "state": each.state.name,
            "values": each.values,
            "curve": each.intermediate_values,
            "attrs": each.user_attrs,
        }
        for each in trials
    ]


def plain_rows(trials: list[FrozenTrial]) -> list[Mapping[str, Any]]:
    """The same without what a clock or a folder decides."""
    rows = told(trials)
    return [{**row, "attrs": {k: v for k, v in row["attrs"].items() if k != "seconds"}} for row in rows]
