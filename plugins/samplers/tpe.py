"""Tree-structured Parzen estimator: proposes what good trials have and bad ones have not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import optuna
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.sampler import _split_trials, default_gamma, default_gamma_multiobjective
from optuna.trial import FrozenTrial, TrialState

from deepmine_auto import Sampler


@dataclass(frozen=True, kw_only=True)
class Tpe(Sampler):
    """Params that all trials have are drawn together, those of single variants one by one; running trials repel."""

    name: ClassVar[str] = "tpe"
    source: ClassVar[str] = "arXiv:2304.11127"

    n_startup_trials: int = 10
    """How many trials are drawn at random first."""

    def build(self, seed: int) -> optuna.samplers.BaseSampler:
        """Make Optuna's TPESampler; `group=True` takes three times as long on a conditional space."""
        return OneSplit(multivariate=True, group=False, n_startup_trials=self.n_startup_trials, seed=seed)

    def startup(self) -> int:
        """Return `n_startup_trials`."""
        return self.n_startup_trials


class OneSplit(TPESampler):
    """Optuna's TPESampler, but for the sorting of all trials into good and bad ones: once a proposal, not once a param.

    What it proposes is the same.
    """

    _sorted_for: int | None = None
    _good: list[FrozenTrial]
    _bad: list[FrozenTrial]

    def _sample(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        if self._sorted_for != trial.number:
            self._sort(study, trial)
        good = self._build_parzen_estimator(study, search_space, self._good, handle_below=True)
        bad = self._build_parzen_estimator(study, search_space, self._bad, handle_below=False)
        drawn = good.sample(self._rng.rng, self._n_ei_candidates)
        best = self._compare(drawn, self._compute_acquisition_func(drawn, good, bad))
        return {name: each.to_external_repr(best[name]) for name, each in search_space.items()}

    def _sort(self, study: Study, trial: FrozenTrial) -> None:
        seen = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        trials = [each for each in study.get_trials(deepcopy=False, states=seen) if each.number != trial.number]
        ended = sum(each.state != TrialState.RUNNING for each in trials)
        share = default_gamma if len(study.directions) == 1 else default_gamma_multiobjective
        self._good, self._bad = _split_trials(study, trials, share(ended))
        self._sorted_for = trial.number

    def _get_internal_repr(
        self, trials: list[FrozenTrial], search_space: dict[str, BaseDistribution], study: Study
    ) -> dict[str, np.ndarray]:
        """Params as numbers, of the trials that have them; here a running trial has all that it will ever have."""
        names = search_space.keys()
        rows = [params for each in trials if names <= (params := each.params).keys()]
        return {name: np.array([own.to_internal_repr(row[name]) for row in rows]) for name, own in search_space.items()}
