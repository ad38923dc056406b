"""How a search would go, from what some of its models cost. Pure functions of numbers.

Shapes: N models, M measured ones, F things that are known of a model before it is trained, R rounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn.linear_model import LinearRegression

from deepmine_auto.contracts import Pruner, Report
from deepmine_auto.messages import WHOLE
from deepmine_auto.study.budget import reserve
from deepmine_auto.study.finals import FINALISTS, REPEATS
from deepmine_auto.study.pruning import judge
from deepmine_auto.training.recipe import FEWEST_REPORTS

ENDS = (10, 50, 90)
"""The percentiles that an interval states."""

ROUNDS, MOST_AVERAGED = 500, 1_000
SIMULATED = 100
"""So many trials are put before the pruner; those that follow are pruned as the last half of them."""


class Interval(NamedTuple):
    """The 10th, 50th and 90th percentile of what may be expected."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: Any) -> Interval:
        """That of some values."""
        return cls(*map(float, np.percentile(values, ENDS)))

    @classmethod
    def over(cls, three: Iterable[float]) -> Interval:
        """Three values in their order."""
        return cls(*sorted(three))

    def then(self, work: Callable[[float], float]) -> Interval:
        """What follows from each of the three."""
        return Interval.over(map(work, self))


# -- from models that were measured to all ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Scaled:
    """What each model is expected to cost, (N,), and how far that was off, (M,): each measured cost over what the other
    measured ones would have had one expect."""

    expected_N: np.ndarray
    ratios_M: np.ndarray

    @property
    def one(self) -> Interval:
        """The cost of one model drawn at random: the spread of the models times the error."""
        return Interval.of(np.outer(self.expected_N, self.ratios_M))

    def mean_of(self, count: int) -> Interval:
        """The mean cost of so many models: their spread averages out, the error is taken to be the same for all."""
        rng = np.random.default_rng(0)
        drawn_R = rng.choice(self.expected_N, (ROUNDS, min(max(1, count), MOST_AVERAGED))).mean(1)
        return Interval.of(drawn_R * rng.choice(self.ratios_M, ROUNDS))


def scaled(known_NF: np.ndarray, costs: Mapping[int, float]) -> Scaled:
    """Expect of each model a sum of shares of what is known of it, fitted to the costs of those that were measured."""
    known_NF = known_NF / np.maximum(known_NF.max(0), 1e-12)
    known_MF, costs_M = known_NF[list(costs)], np.array(list(costs.values()))
    others = [np.arange(len(costs_M)) != each for each in range(len(costs_M))] if len(costs_M) > 1 else []
    off = [costs_M[~each][0] / (known_MF[~each][0] @ _shares(known_MF[each], costs_M[each])) for each in others]
    return Scaled(known_NF @ _shares(known_MF, costs_M), np.array(off or [1.0]))


def _shares(known_MF: np.ndarray, costs_M: np.ndarray) -> np.ndarray:
    """The shares, none below zero, by which costs are met best; an error counts by its part of the cost."""
    fit = LinearRegression(positive=True, fit_intercept=False).fit(known_MF / costs_M[:, None], np.ones(len(costs_M)))
    return np.asarray(fit.coef_)


# -- what a pruner saves ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pruned:
    """The share of its own budget that each of a search's first trials is trained for."""

    shares: tuple[float, ...]

    @property
    def tail(self) -> float:
        """The share of each trial that follows."""
        return sum(self.shares[len(self.shares) // 2 :]) / (len(self.shares) - len(self.shares) // 2)

    def after(self, first: float) -> Pruned:
        """The same where each trial begins with a share `first` of its steps that no report judges."""
        return Pruned(tuple(first + (1 - first) * each for each in self.shares))

    def work(self, trials: int) -> float:
        """What so many trials take, in whole trials."""
        return sum(self.shares[:trials]) + self.tail * max(0, trials - len(self.shares))

    def trials(self, work: float) -> int:
        """How many trials so much work is enough for."""
        for count, share in enumerate(self.shares):
            work -= share
            if work < 0:
                return count
        return len(self.shares) + int(work / self.tail)


def pruned(pruner: Pruner, objectives: int, seed: int) -> Pruned:
    """Put trials before a pruner, one after the other, whose order by value is random and never changes."""
    rng = np.random.default_rng(seed)
    steps = [round(WHOLE * (each + 1) / FEWEST_REPORTS) for each in range(FEWEST_REPORTS)]
    reports: list[Report] = []
    shares = []
    for trial in range(SIMULATED):
        values = tuple(rng.random(objectives).tolist())
        for share in steps:
            reports.append(Report(trial, share, values[0], len(reports) + 1, values, share == WHOLE))
            if not judge(pruner, reports, len(reports)).keep:
                break
        shares.append(reports[-1].share / WHOLE)
    return Pruned(tuple(shares))


# -- from trials to a study ------------------------------------------------------------------------------------------


class Course(NamedTuple):
    """How a study goes: trials and their seconds, reruns and their seconds, the seconds after them."""

    trials: int
    search: float
    reruns: int
    finals: float
    end: float

    @property
    def whole(self) -> float:
        """Seconds from its begin to its bundle."""
        return self.search + self.finals + self.end


@dataclass(frozen=True)
class Terms:
    """What a study may use: trials and seconds (infinite where they are not limited), workers; the seconds of the
    closing; what pruning saves; and the seconds that are kept for a refit."""

    trials: float
    seconds: float
    slots: int
    closing: float
    pruned: Pruned
    refit: float = 0.0

    @property
    def end(self) -> float:
        """The seconds after the finals."""
        return self.closing + self.refit

    def course(self, trial_seconds: float) -> Course:
        """How a study goes whose trials take so long on average if they are trained to their end."""
        search = self._search_seconds(trial_seconds)
        trials = self._trials(search, trial_seconds)
        if trials == self.trials:
            search = min(search, max(1.0, self.pruned.work(trials) / self.slots) * trial_seconds)
        left = max(0.0, self.seconds - search - self.end)
        reruns = int(min(min(trials, FINALISTS) * REPEATS, left * self.slots / trial_seconds))
        finals = math.ceil(reruns / self.slots) * trial_seconds
        return Course(trials, search, reruns, min(finals, left), self.end)

    def _search_seconds(self, trial_seconds: float) -> float:
        """The most that the search may take. Time is kept for reruns as soon as there is something to train again."""
        if math.isinf(self.seconds):
            return math.inf
        reruns = [trial_seconds] * (FINALISTS * REPEATS)
        kept, least = (reserve(self.seconds, self.end, each, self.slots) for each in (reruns, []))
        left = self.seconds - kept
        return max(0.0, left if left * self.slots >= trial_seconds else self.seconds - least)

    def _trials(self, seconds: float, trial_seconds: float) -> int:
        if math.isinf(seconds):
            return int(self.trials)
        return int(min(self.trials, self.pruned.trials(seconds * self.slots / trial_seconds)))
