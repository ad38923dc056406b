"""The mirror: what the sampler sees of a study.

An in-memory Optuna study rebuilt from the rows at start. It differs from the ledger where it must: failures that params
caused stand here as infeasible. Optuna's samplers never read FAIL, so that what always fails would look unexplored.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from deepmine_auto.contracts import Sampler
from deepmine_auto.space import Param, Space, Value
from deepmine_auto.study.seeding import seed_of

INFEASIBLE = "deepmine"
"""The name of the constraint that stands above zero for what failed because of its params."""

Barred = Callable[[str, Value], Value | None]
"""What replaces a drawn value whose plugin was set aside; None where nothing does."""


class Mirror:
    """Proposes params from what the rows say. Each proposal has its own seed, so that a restart proposes the same."""

    def __init__(self, space: Space, sampler: Sampler, directions: Sequence[StudyDirection], seed: int) -> None:
        optuna.logging.set_verbosity(logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.space = space
        self.sampler = sampler
        self.seed = seed
        self.study = optuna.create_study(storage=optuna.storages.InMemoryStorage(), directions=directions)
        self.trials: dict[int, Trial] = {}

    def add(self, row: FrozenTrial, infeasible: bool) -> None:
        """Take over a row of the study."""
        seen = create_trial(
            state=TrialState.RUNNING,
            params=row.params,
            distributions=row.distributions,
            system_attrs=row.system_attrs,
            intermediate_values=row.intermediate_values,
        )
        storage = self.study._storage
        self.trials[row.number] = Trial(self.study, storage.create_new_trial(self.study._study_id, seen))
        if row.state.is_finished():
            self.tell(row.number, row.state, row.value, infeasible)

    def ask(self, number: int, bar: Barred) -> FrozenTrial:
        """Propose trial `number`: a RUNNING row without a number, ready to be written."""
        seed = seed_of(self.seed, "ask", number)
        try:
            return self._draw(number, self.sampler.build(seed), bar)
        except Exception as error:  # a sampler is a plugin: whatever it raises, the study goes on
            self._drop_unwritten()
            proposed = self._draw(number, RandomSampler(seed), bar)
            proposed.user_attrs["sampler_error"] = f"{type(error).__name__}: {error}"
            return proposed

    def _draw(self, number: int, sampler: optuna.samplers.BaseSampler, bar: Barred) -> FrozenTrial:
        self.study.sampler = sampler
        if number < len(self.space.recipes):
            self.study.enqueue_trial(dict(self.space.recipes[number]))
        trial = self.study.ask()
        self.space.draw(lambda param: _suggest(trial, param, bar))
        self.trials[number] = trial
        return self._row(trial)

    def _drop_unwritten(self) -> None:
        """Fail what has no row: a running trial repels the sampler, and after a restart it would not be there."""
        written = {each._trial_id for each in self.trials.values()}
        for each in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)):
            if each._trial_id not in written:
                self.study._storage.set_trial_state_values(each._trial_id, TrialState.FAIL)

    def _row(self, trial: Trial) -> FrozenTrial:
        drawn = self.study._storage.get_trial(trial._trial_id)
        return create_trial(
            state=TrialState.RUNNING,
            params=drawn.params,
            distributions=drawn.distributions,
            system_attrs=_kept(drawn.system_attrs),
        )

    def report(self, number: int, step: int, value: float) -> None:
        """See an intermediate value."""
        self.study._storage.set_trial_intermediate_value(self.trials[number]._trial_id, step, value)

    def tell(self, number: int, state: TrialState, value: float | None, infeasible: bool) -> None:
        """See the end of a trial; an infeasible one is seen as pruned and against a constraint."""
        trial = self.trials[number]
        storage = self.study._storage
        if infeasible:
            trial.set_constraint(INFEASIBLE, 1.0)
            state = TrialState.PRUNED
        keeps_value = state == TrialState.COMPLETE
        storage.set_trial_state_values(trial._trial_id, state, [value] if keeps_value and value is not None else None)


def _suggest(trial: Trial, param: Param, bar: Barred) -> Value:
    drawn = param.range.suggest(trial, param.name)
    instead = bar(param.name, drawn)
    if instead is None:
        return drawn
    _overwrite(trial, param.name, instead)
    return instead


def _overwrite(trial: Trial, name: str, value: Value) -> None:
    storage, trial_id = trial.storage, trial._trial_id
    distribution: BaseDistribution = storage.get_trial(trial_id).distributions[name]
    storage.set_trial_param(trial_id, name, distribution.to_internal_repr(value), distribution)


def _kept(attrs: Mapping[str, Any]) -> dict[str, Any]:
    # a recipe's fixed params are for the mirror's own queue; anything else is a sampler's state, which lives in rows
    return {key: value for key, value in attrs.items() if key != "fixed_params"}
