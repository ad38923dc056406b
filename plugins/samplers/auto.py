"""The sampler that suits the study: chosen anew for each proposal, by the params that its trials have and by how many
of them have ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import optuna
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from deepmine_auto import Sampler

from .gp import Gp
from .tpe import Tpe

FEW = 40
"""As far as this was measured, a Gaussian process found more than TPE where all params are numbers, and no more where
some are options; a proposal takes thirty times as long."""

WIDEST = 20
"""With so many params a proposal took 0.8 s."""


@dataclass(frozen=True, kw_only=True)
class Auto(Sampler):
    """Asks `gp` or `tpe`, as `choice` says; a trial's attribute `sampler` says which was asked for what no recipe gave.
    `nsga2` is never asked: at 400 trials of two objectives it had not found more than TPE."""

    name: ClassVar[str] = "auto"
    source: ClassVar[str] = "https://hub.optuna.org/samplers/auto_sampler/"

    def build(self, seed: int) -> optuna.samplers.BaseSampler:
        """Make a sampler that chooses once it sees the study."""
        return _Chosen(seed)

    def startup(self) -> int:
        """Return that of both samplers that it asks."""
        return min(Gp().startup(), Tpe().startup())


class Seen(NamedTuple):
    """What is known of a study: how many trials have ended complete or pruned, how many params are searched, and
    whether these are numbers that every trial has."""

    ended: int
    params: int
    plain: bool


def choice(seen: Seen) -> type[Sampler]:
    """The sampler of the next proposal: `gp` for 1 to `WIDEST` numbers that every trial has while fewer than `FEW`
    trials have ended, `tpe` for all else."""
    return Gp if seen.plain and 1 <= seen.params <= WIDEST and seen.ended < FEW else Tpe


def seen_in(study: Study, asking: FrozenTrial) -> Seen:
    """What the trials before say of a study: the space itself is never told to a sampler. A param of one value is not
    searched."""
    trials = [each for each in study.get_trials(deepcopy=False) if each.number != asking.number]
    sets = [_searched(each) for each in {tuple(own): own for own in (row.distributions for row in trials)}.values()]
    every = {name: own for each in sets for name, own in each.items()}
    numbers = not any(isinstance(own, CategoricalDistribution) for own in every.values())
    plain = numbers and all(len(each) == len(every) for each in sets)
    ended = sum(each.state in (TrialState.COMPLETE, TrialState.PRUNED) for each in trials)
    return Seen(ended, len(every), plain)


def _searched(distributions: dict[str, BaseDistribution]) -> dict[str, BaseDistribution]:
    return {name: own for name, own in distributions.items() if not own.single()}


class _Chosen(optuna.samplers.BaseSampler):
    """Hands everything to the sampler that it chooses before the trial."""

    _sampler: optuna.samplers.BaseSampler

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        chosen = choice(seen_in(study, trial))
        study._storage.set_trial_user_attr(trial._trial_id, "sampler", chosen.name)
        self._sampler = chosen().build(self._seed)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._sampler.after_trial(study, trial, state, values)
