"""Another sampler on a recorded study: how soon it would have come upon the best of the recorded trials.

What it proposes cannot be trained, so this is a search of a finite table: each proposal is answered by the nearest
recorded trial that is still left. All samplers end with the table's best, and only how soon they find it can differ.
The table was drawn by the recorded sampler and is thickest where that one looked; towards the end, answers lie far from
proposals. So this ranks samplers for spaces and data like these; it is no measurement of a search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from optuna.trial import FrozenTrial, create_trial

from deepmine_auto.audit.record import Record
from deepmine_auto.contracts import Sampler
from deepmine_auto.errors import BadInput
from deepmine_auto.space import Choice, Param, Space, Value
from deepmine_auto.study.finals import may_win
from deepmine_auto.study.known import held_against
from deepmine_auto.study.mirror import Mirror
from deepmine_auto.study.names import distribution_of
from deepmine_auto.study.pruning import oriented
from deepmine_auto.study.seeding import seed_of
from deepmine_auto.study.spaces import Spaces

REPEATS = 5
"""So often a sampler searches the recorded trials, each time with another seed."""

QUARTER, HALF = 0.25, 0.5


@dataclass(frozen=True)
class SamplerOutcome:
    """The best value after a quarter and after half of the recorded trials, and after how many the best was found."""

    sampler: str
    quarter: float
    half: float
    found_after: float


class Table:
    """The recorded trials that have a value and that today's space can say, in their order. With several objectives,
    the first is what is looked for. Raises BadInput where there is none."""

    def __init__(self, record: Record) -> None:
        self.study, self.seed, self.history = record.study, int(record.study.spec["seed"]), record.history
        now, best = record.spaces.now, record.history.best_values()
        self.space = Space(now.params, now.fixed)  # without recipes: the sampler is free from the first trial on
        fits = {each.number: now.fit(record.spaces.complete(each.number, each.params))
                for each in record.trials_by_number if each.number in best}  # fmt: skip
        self.rows = [each for each in record.trials_by_number if fits.get(each.number) is not None]
        if not self.rows:
            raise BadInput("No trial of this study has a value.", "Record one that has.")
        self.params: list[Mapping[str, Value]] = [fits[each.number] or {} for each in self.rows]
        self.values = self._values(best)
        self.places_NP = np.array([self._place(each) for each in self.params])
        self.categorical_P = np.array([isinstance(each.range, Choice) for each in self.space.params])

    def _values(self, best: Mapping[int, float]) -> list[float]:
        """Of each row, the larger the better; what may not win is no better than the worst that may."""
        values = [oriented(best[each.number], self.study.direction) for each in self.rows]
        able = [may_win(each) for each in self.rows]
        worst = min((value for value, each in zip(values, able, strict=True) if each), default=math.inf)
        return [value if each else min(value, worst) for value, each in zip(values, able, strict=True)]

    # -- outcomes ----------------------------------------------------------------------------------------------------

    def as_recorded(self) -> SamplerOutcome:
        """How soon the recorded study itself found its best."""
        return self._outcome(f"{self.study.spec['sampler']}, as recorded", [range(len(self.rows))])

    def by_chance(self) -> SamplerOutcome:
        """What drawing in any order is expected to do: what every sampler must beat."""
        ranked = sorted(self.values, reverse=True)
        count, best = len(ranked), ranked.count(ranked[0])
        quarter, half = (self._sign * _expected_best(ranked, self._first(share)) for share in (QUARTER, HALF))
        return SamplerOutcome("by chance", quarter, half, (count + 1) / (best + 1))

    def with_sampler(self, sampler: Sampler) -> SamplerOutcome:
        """How soon a sampler finds it; means over several seeds."""
        orders = [self.order(sampler, seed_of(self.seed, "replay", each)) for each in range(REPEATS)]
        return self._outcome(sampler.name, orders)

    def _outcome(self, name: str, orders: Sequence[Sequence[int]]) -> SamplerOutcome:
        best = max(self.values)
        found = (next(place for place, at in enumerate(each, 1) if self.values[at] == best) for each in orders)
        return SamplerOutcome(name, self._best_after(QUARTER, orders), self._best_after(HALF, orders), fmean(found))

    def _best_after(self, share: float, orders: Sequence[Sequence[int]]) -> float:
        return self._sign * fmean(max(self.values[at] for at in order[: self._first(share)]) for order in orders)

    def _first(self, share: float) -> int:
        return math.ceil(len(self.rows) * share)

    @property
    def _sign(self) -> float:
        return oriented(1.0, self.study.direction)

    # -- the search --------------------------------------------------------------------------------------------------

    def order(self, sampler: Sampler, seed: int) -> list[int]:
        """The order in which a sampler comes upon the trials; it is told of each as if it had proposed it."""
        spaces = Spaces({"space": self.space.to_json(), "space_name": ""}, ())
        mirror = Mirror(spaces, sampler, self.study.directions, seed)
        order: list[int] = []
        left_N = np.ones(len(self.rows), bool)
        for number in range(len(self.rows)):
            proposed = mirror.ask(number, _bar_nothing)
            distances_N = self._distances(self._place(proposed.params))
            at = int(np.argmin(np.where(left_N, distances_N, np.inf)))
            left_N[at] = False
            order.append(at)
            mirror.add(self._row(number, at), held_against(self.rows[at]), self.history.curve(self.rows[at].number))
        return order

    def _row(self, number: int, at: int) -> FrozenTrial:
        """A recorded trial as the answer to proposal `number`."""
        trial, ranges = self.rows[at], {each.name: each.range for each in self.space.params}
        row = create_trial(
            state=trial.state,
            values=trial.values,
            params=dict(self.params[at]),
            distributions={name: distribution_of(ranges[name]) for name in self.params[at]},
        )
        row.number = number
        return row

    def _place(self, params: Mapping[str, Value]) -> list[float]:
        """Each param as a number: numbers from 0 to 1 over their range, options by their index, NaN where it is not."""
        return [_unit(each, params[each.name]) if each.name in params else math.nan for each in self.space.params]

    def _distances(self, place_P: Sequence[float]) -> np.ndarray:
        """How far all trials (N,) are from a place: a param adds how far its numbers are apart, or 1 for other options
        and where only one of the two has it."""
        here_NP, there_P = self.places_NP, np.array(place_P)
        apart_NP = np.abs(here_NP - there_P)
        apart_NP = np.where(self.categorical_P, apart_NP > 0, apart_NP)
        apart_NP = np.where(np.isnan(here_NP) & np.isnan(there_P), 0.0, apart_NP)
        distances_N: np.ndarray = np.where(np.isnan(here_NP) != np.isnan(there_P), 1.0, apart_NP).sum(axis=1)
        return distances_N


def _expected_best(ranked: Sequence[float], drawn: int) -> float:
    """The expected largest of `drawn` values without replacement; `ranked` is largest first."""
    count, draws = len(ranked), math.comb(len(ranked), drawn)
    chances = (math.comb(count - place, drawn - 1) / draws for place in range(1, count + 1))
    return math.fsum(value * chance for value, chance in zip(ranked, chances, strict=True))


def _bar_nothing(_name: str, _value: Value) -> None:
    return None


def _unit(param: Param, value: Value) -> float:
    if isinstance(param.range, Choice):
        found = (each == value and type(each) is type(value) for each in param.range.options)
        return float([*found].index(True))
    scale: Callable[[float], float] = math.log if param.range.log else float
    low, high = scale(param.range.low), scale(param.range.high)
    return (scale(float(value)) - low) / (high - low) if high > low else 0.0
