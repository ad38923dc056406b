"""What a sampler is shown: trials of today's space, as many as it can read in time."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from deepmine_auto.space import Choice, Param, Space, Value
from deepmine_auto.storage.store import Row
from deepmine_auto.study.names import distribution_of
from deepmine_auto.study.ranking import best_first

NEWEST = 400
BEST = 100
"""Of more rows than both together, a sampler is shown the newest, and the best of the others. TPE takes no more than 25
for good, and reads all that it is shown again for every param: 2,000 would take it four times as long."""

MOST_EVIDENCE = 100
"""So many trials of other studies are shown at first; each trial of the study's own takes the place of one."""

TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""Optuna wants times; no sampler reads them."""


@dataclass(frozen=True)
class Given:
    """What is known of a trial: all its params by plain names, how far it is, what its sampler noted, and how far it is
    over each constraint."""

    params: Mapping[str, Value]
    state: TrialState
    values: Sequence[float] | None
    curve: Mapping[int, float]
    attrs: Mapping[str, Any]
    constraints: Mapping[str, float]

    @property
    def seen_as(self) -> TrialState:
        """The state that tells a sampler the truth: it never reads FAIL, and PRUNED over a constraint is infeasible."""
        return TrialState.PRUNED if any(each > 0 for each in self.constraints.values()) else self.state


class Shown(FrozenTrial):
    """A trial in a view. Optuna's storage copies what it is given; nobody changes these, so that a copy may share."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Shown:
        return copy.copy(self)


class _Choices(CategoricalDistribution):
    """Equal at a glance to itself: at every proposal Optuna compares the choices of all trials."""

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)

    __hash__ = CategoricalDistribution.__hash__

    def __deepcopy__(self, memo: dict[int, Any]) -> CategoricalDistribution:
        return CategoricalDistribution(self.choices)  # Optuna also compares classes with those that it makes itself


def _distribution(param: Param) -> BaseDistribution:
    return _Choices(param.range.options) if isinstance(param.range, Choice) else distribution_of(param.range)


class View:
    """The trials that today's space can say."""

    def __init__(self, space: Space, directions: Sequence[StudyDirection], evidence: Iterable[Row]) -> None:
        self.space, self.directions = space, directions
        self._distributions = {each.name: _distribution(each) for each in space.params}
        self._sets: dict[tuple[str, ...], dict[str, BaseDistribution]] = {}
        self._shown: dict[int, Shown | None] = {}
        fitting = [(row["rank"], fit) for row in evidence if (fit := space.fit(row["params"])) is not None]
        self._others = sorted(fitting, key=lambda each: -each[0])

    def forget(self, number: int) -> None:
        """A row has changed."""
        self._shown.pop(number, None)

    def trials(self, given: Mapping[int, Given]) -> list[Shown]:
        """Show what is given, by number: evidence of other studies first, then rows in their order."""
        rows = self._window([each for number in sorted(given) if (each := self._row(number, given[number]))])
        return [*self._evidence(rows), *rows]

    def _row(self, number: int, given: Given) -> Shown | None:
        if number not in self._shown:
            params = self.space.fit(given.params)
            self._shown[number] = None if params is None else self._show(params, given)
        return self._shown[number]

    def _show(self, params: dict[str, Value], given: Given) -> Shown:
        complete = given.seen_as == TrialState.COMPLETE
        constraints = {f"constraints:{name}": each for name, each in given.constraints.items()}
        return Shown(
            number=-1,
            state=given.seen_as,
            value=None,
            datetime_start=TIME,
            datetime_complete=TIME if given.seen_as.is_finished() else None,
            params=params,
            distributions=self._distributions_of(tuple(params)),
            user_attrs={},
            system_attrs={**given.attrs, **constraints},
            intermediate_values=self._curve(given),
            trial_id=-1,
            values=given.values if complete else None,
        )

    def _distributions_of(self, names: tuple[str, ...]) -> dict[str, BaseDistribution]:
        """One dict for all trials that have the same params."""
        return self._sets.setdefault(names, {name: self._distributions[name] for name in names})

    def _curve(self, given: Given) -> dict[int, float]:
        """The last point of what has ended, which is all that a sampler reads, again and again; beside several
        objectives none, because there TPE raises where it finds any."""
        if len(self.directions) > 1:
            return {}
        return dict([max(given.curve.items())] if given.curve and given.seen_as.is_finished() else given.curve.items())

    def _window(self, rows: list[Shown]) -> list[Shown]:
        if len(rows) <= BEST + NEWEST:
            return rows
        good = [each for each in rows[:-NEWEST] if each.state == TrialState.COMPLETE]
        best = best_first([each.values for each in good], self.directions, BEST)
        return [*(good[at] for at in sorted(best)), *rows[-NEWEST:]]

    def _evidence(self, rows: list[Shown]) -> list[Shown]:
        learned = sum(each.state in (TrialState.COMPLETE, TrialState.PRUNED) for each in rows)
        left = min(len(self._others), max(0, MOST_EVIDENCE - learned))
        values = [each.values for each in rows if left and each.state == TrialState.COMPLETE]
        ladder = [values[at] for at in best_first(values, self.directions, len(values))]
        spread = [self._others[at * len(self._others) // left] for at in range(left)]
        return [self._show(params, self._as_good(rank, params, ladder)) for rank, params in spread]

    def _as_good(self, rank: float, params: dict[str, Value], ladder: list[list[float]]) -> Given:
        """A trial of another study with the values of the own trial next below its rank: values of two studies do not
        compare, and no other study shall outdo the best of this one."""
        signs = [1.0 if each == StudyDirection.MAXIMIZE else -1.0 for each in self.directions]
        below = min(len(ladder) - 1, math.ceil((1 - rank) * len(ladder)))
        values = ladder[below] if ladder else [sign * rank for sign in signs]
        return Given(params, TrialState.COMPLETE, values, {}, {}, {})
