"""Gaussian process: fits a smooth surface to the trials, and proposes where most improvement is expected."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, ClassVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from deepmine_auto import Sampler

# All that this logger has to say is that one more package would make it faster.
logging.getLogger("optuna._gp.batched_lbfgsb").setLevel(logging.ERROR)


@dataclass(frozen=True, kw_only=True)
class Gp(Sampler):
    """For few, dear trials: slower than TPE. It learns of the params that all trials have; those of single variants are
    drawn at random."""

    name: ClassVar[str] = "gp"
    source: ClassVar[str] = "arXiv:1206.2944"

    n_startup_trials: int = 10
    """How many trials are drawn at random first."""

    def build(self, seed: int) -> optuna.samplers.BaseSampler:
        """Make Optuna's GPSampler, told of the trials that were stopped."""
        return _Told(n_startup_trials=self.n_startup_trials, warn_independent_sampling=False, seed=seed)

    def startup(self) -> int:
        """Return `n_startup_trials`."""
        return self.n_startup_trials


class _Told(optuna.samplers.GPSampler):
    """Optuna's own reads complete trials alone, so that what is always stopped looks unexplored and attracts it: with
    one option of three that always failed, every proposal came to have it."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return super().infer_relative_search_space(_with_stopped_as_worst(study), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        del trial  # the sampler leaves notes on the trial that asks, so the copy gets one of its own
        told = _with_stopped_as_worst(study)
        told.ask()
        return super().sample_relative(told, told.get_trials(deepcopy=False)[-1], search_space)


def _with_stopped_as_worst(study: optuna.Study) -> optuna.Study:
    """Copy a study; its pruned and infeasible trials get the worst values of the complete ones."""
    told = optuna.create_study(directions=study.directions, sampler=optuna.samplers.RandomSampler())
    trials = study.get_trials(deepcopy=False)
    good = [each for each in trials if each.state is TrialState.COMPLETE and not _infeasible(each)]
    told.add_trials([each for each in trials if each.state is TrialState.RUNNING])
    told.add_trials([_complete(each, each.values) for each in good])
    if good:
        worst = _worst(study.directions, good)
        stopped = [each for each in trials if each.state is TrialState.PRUNED or _infeasible(each)]
        told.add_trials([_complete(each, worst) for each in stopped])
    return told


def _infeasible(trial: FrozenTrial) -> bool:
    return any(each > 0 for each in trial.constraints.values())


def _worst(directions: list[StudyDirection], trials: list[FrozenTrial]) -> list[float]:
    columns = zip(*(each.values for each in trials), strict=True)
    return [
        max(column) if direction is StudyDirection.MINIMIZE else min(column)
        for direction, column in zip(directions, columns, strict=True)
    ]


def _complete(trial: FrozenTrial, values: list[float]) -> FrozenTrial:
    return optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, values=values)
