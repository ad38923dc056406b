"""Rows of a study without a database: what a mirror has seen live, and what a restart would give it."""

import copy
from dataclasses import dataclass, field
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import TrialState

from deepmine_auto.space import Choice, Float, Param, Space
from deepmine_auto.study.mirror import Mirror
from deepmine_auto.study.spaces import Spaces
from deepmine_plugins.samplers.tpe import Tpe

WAYS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE, StudyDirection.MINIMIZE)
KIND = Param("attention/kind", Choice("a", "b"), {})
WIDTH = Param("attention/a/width", Choice(1, 2, 4), {"attention/kind": ("a",)})
LR = Param("optimizer/adamw/lr", Float(1e-4, 1e-1, log=True), {})
SPACE = Space((KIND, WIDTH, Param("optimizer/kind", Choice("adamw"), {}), LR), {"training/epochs": 3})


def spaces_of(*spaces: tuple[int, Space] | Space) -> Spaces:
    """The first space, and those that follow as (since, space)."""
    first, *later = spaces
    rows = [{"since": since, "name": f"s{since}", "space": space.to_json()} for since, space in later]
    return Spaces({"space_name": "s", "space": first.to_json()}, rows)


def anything(name: str, value: Any) -> None:
    """Nothing is set aside."""


@dataclass
class Rows:
    """A study's rows, and the mirror that saw them come."""

    spaces: Spaces = field(default_factory=lambda: spaces_of(SPACE))
    sampler: Any = field(default_factory=Tpe)
    objectives: int = 1
    evidence: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        self.rows: dict[int, Any] = {}
        self.constraints: dict[int, dict[str, float]] = {}
        self.live = self.restarted()

    def restarted(self) -> Mirror:
        """A mirror that knows the rows alone."""
        mirror = Mirror(self.spaces, self.sampler, WAYS[: self.objectives], 7, self.evidence)
        for number, row in self.rows.items():
            mirror.add(copy.deepcopy(row), self.constraints.get(number, {}), dict(row.intermediate_values))
        return mirror

    def goes_on(self, spaces: Spaces) -> None:
        """A driver goes on in other spaces."""
        self.spaces = spaces
        self.live = self.restarted()

    def ask(self) -> Any:
        """Propose the next trial and write its row."""
        row = copy.deepcopy(self.live.ask(len(self.rows), anything))
        row.number = len(self.rows)
        self.rows[row.number] = row
        return row

    def report(self, number: int, share: int, value: float) -> None:
        """Write a point of a curve, at a share of the trial's steps."""
        self.rows[number].intermediate_values[share] = value
        self.live.report(number, share, value)

    def tell(self, number: int, *values: float, state: str = "COMPLETE", **constraints: float) -> None:
        """Write an end."""
        self.rows[number].state, self.rows[number].values = TrialState[state], list(values) or None
        self.constraints[number] = constraints
        self.live.tell(number, TrialState[state], list(values) or None, constraints)

    def end(self, *values: float, **more: Any) -> Any:
        """Ask, and tell at once."""
        row = self.ask()
        self.tell(row.number, *values, **more)
        return row

    def shown(self) -> list[Any]:
        """What the next proposal will see."""
        return self.live.study.get_trials(deepcopy=False)
