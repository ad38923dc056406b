"""The mirror: what the sampler sees of a study, and what it proposes.

It differs from the rows where it must. Every row speaks of today's space, whatever its params were called; a row that
today's space cannot say is no evidence. What params caused stands as infeasible, because Optuna's samplers never read
FAIL, so that what always fails would look unexplored. Trials of earlier studies may stand beside the rows.

All of it is worked out from the rows anew at every proposal, so that a restart proposes the same.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from deepmine_auto.aside import aside
from deepmine_auto.contracts import Sampler
from deepmine_auto.space import Param, Space, Value, essential
from deepmine_auto.storage.store import Row
from deepmine_auto.study.names import Names
from deepmine_auto.study.remaining import all_of
from deepmine_auto.study.seeding import seed_of
from deepmine_auto.study.spaces import Spaces
from deepmine_auto.study.view import Given, Shown, View

INFEASIBLE = "deepmine"
"""The name of the constraint that stands above zero for what failed because of its params."""

ASK_AGAIN = 5
"""So often a sampler is asked again for params that no earlier trial has had."""

SAMPLER_SECONDS = 30.0
MOST_WAITS = 3
"""A sampler is waited for so long, and after so many waits in vain it is asked no more."""

SAMPLER_ERROR = "sampler_error"
"""The attribute of a row that was drawn at random, and why."""

PROPOSED_BY = "sampler"
"""The attribute of a row whose sampler chose among others, and which."""

Barred = Callable[[str, Value], Value | None]
"""What replaces a drawn value whose plugin was set aside; None where nothing does."""

Build = Callable[[int], BaseSampler]


class Mirror:
    """Proposes params from what the rows say. Each proposal has its own seed.

    `evidence` are rows of the table of that name.
    """

    def __init__(
        self,
        spaces: Spaces,
        sampler: Sampler,
        directions: Sequence[StudyDirection],
        seed: int,
        evidence: Iterable[Row] = (),
    ) -> None:
        optuna.logging.set_verbosity(logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.spaces, self.sampler, self.directions, self.seed = spaces, sampler, directions, seed
        self.evidence = list(evidence)
        self.names = Names()
        self.given: dict[int, Given] = {}
        self.known: dict[int, int] = {}
        self.waits: set[int] = set()
        self._view = View(spaces.now, directions, self.evidence)
        self._all: tuple[Space | None, list[dict[str, Value]] | None] = None, None

    # -- rows --------------------------------------------------------------------------------------------------------

    def add(self, row: FrozenTrial, constraints: Mapping[str, float], curve: Mapping[int, float]) -> None:
        """Take over a row of the study; how far its trial is over each constraint, where above 0 is infeasible; and its
        values by the share of its own steps, in thousandths. TPE ranks pruned trials by how far they came, and the
        steps of two trials do not compare."""
        self._give(row.number, row, constraints, curve)

    def _give(
        self, number: int, row: FrozenTrial, constraints: Mapping[str, float], curve: Mapping[int, float]
    ) -> None:
        params, attrs = self.spaces.complete(number, row.params), of_sampler(row.system_attrs)
        self.names.note(row.distributions)
        self.known[number] = _mark(params)
        if str(row.user_attrs.get(SAMPLER_ERROR, "")).startswith(TimeoutError.__name__):
            self.waits.add(number)
        self._change(number, Given(params, row.state, row.values, curve, attrs, constraints))

    def report(self, number: int, share: int, value: float) -> None:
        """See a value at a share of a trial's steps."""
        given = self.given[number]
        self._change(number, replace(given, curve={**given.curve, share: value}))

    def tell(
        self, number: int, state: TrialState, values: Sequence[float] | None, constraints: Mapping[str, float]
    ) -> None:
        """See the end of a trial, and how far it is over each constraint: above 0 is infeasible."""
        self._change(number, replace(self.given[number], state=state, values=values, constraints=constraints))

    def _change(self, number: int, given: Given) -> None:
        self.given[number] = given
        self._view.forget(number)

    # -- proposals ---------------------------------------------------------------------------------------------------

    def ask(self, number: int, bar: Barred) -> FrozenTrial:
        """Propose trial `number` from the rows before it: a RUNNING row without a number, ready to be written."""
        draw = partial(self._draw, number, self._shown(number), bar)
        proposed = self._in_time(number, partial(draw, self.sampler.build))
        if isinstance(proposed, BaseException):
            why = f"{type(proposed).__name__}: {proposed}"
            proposed = draw(RandomSampler)
            proposed.user_attrs[SAMPLER_ERROR] = why
        self._give(number, proposed, {}, {})
        return proposed

    @property
    def study(self) -> optuna.Study:
        """The study as the next proposal will see it."""
        return self._study(self._shown(max(self.given, default=-1) + 1), RandomSampler())

    def _shown(self, number: int) -> list[Shown]:
        space = self.spaces.at(number)
        if self._view.space is not space:
            self._view = View(space, self.directions, self.evidence)
        return self._view.trials({each: given for each, given in self.given.items() if each < number})

    def _in_time(self, number: int, draw: Callable[[], FrozenTrial]) -> FrozenTrial | BaseException:
        """A sampler's proposal, or what it raised: a sampler is a plugin, and whatever it does, the study goes on."""
        if sum(each < number for each in self.waits) >= MOST_WAITS:
            return TimeoutError(f"no proposal in time in {MOST_WAITS} trials")
        future = aside(draw)
        try:
            return future.exception(SAMPLER_SECONDS) or future.result()
        except TimeoutError:
            return TimeoutError(f"no proposal within {SAMPLER_SECONDS:g} s")

    def _draw(self, number: int, shown: Sequence[Shown], bar: Barred, build: Build) -> FrozenTrial:
        known = {mark for each, mark in self.known.items() if each < number}
        for again in range(1 + ASK_AGAIN):
            seed = seed_of(self.seed, "ask", number, *([again] if again else []))
            drawn = self._drawn(number, self._study(shown, build(seed)), bar)
            if _mark(self.spaces.complete(number, drawn.params)) not in known:
                return self._row(drawn)
        if left := self.remaining(number, bar):
            chosen = left[seed_of(self.seed, "left", number) % len(left)]
            drawn = self._drawn(number, self._study(shown, build(seed)), bar, chosen)
        return self._row(drawn)

    def remaining(self, number: int, bar: Barred) -> list[dict[str, Value]] | None:
        """What trial `number` can draw and no earlier one has, without what is set aside; None where a space has no
        end."""
        space = self.spaces.at(number)
        if self._all[0] is not space:
            self._all = space, all_of(space)
        known = {mark for each, mark in self.known.items() if each < number}
        if (every := self._all[1]) is None:
            return None
        able = [each for each in every if all(bar(name, value) is None for name, value in each.items())]
        return [each for each in able if _mark(space.complete(each)) not in known]

    def _study(self, shown: Iterable[Shown], sampler: BaseSampler) -> optuna.Study:
        storage = InMemoryStorage()
        study = optuna.create_study(storage=storage, sampler=sampler, directions=self.directions)
        for each in shown:
            storage.create_new_trial(study._study_id, each)
        return study

    def _drawn(
        self, number: int, study: optuna.Study, bar: Barred, chosen: Mapping[str, Value] | None = None
    ) -> FrozenTrial:
        recipe = chosen or self.spaces.recipe(number)
        if recipe:
            study.enqueue_trial(dict(recipe))
        trial = study.ask()
        self.spaces.at(number).draw(lambda param: _suggest(trial, param, bar))
        return trial.storage.get_trial(trial._trial_id)

    def _row(self, drawn: FrozenTrial) -> FrozenTrial:
        names = {name: self.names.written(name, each) for name, each in drawn.distributions.items()}
        return create_trial(
            state=TrialState.RUNNING,
            params={names[name]: value for name, value in drawn.params.items()},
            distributions={names[name]: each for name, each in drawn.distributions.items()},
            user_attrs={name: each for name, each in drawn.user_attrs.items() if name == PROPOSED_BY},
            system_attrs=of_sampler(drawn.system_attrs),
        )


def _suggest(trial: Trial, param: Param, bar: Barred) -> Value:
    drawn = param.range.suggest(trial, param.name)
    instead = bar(param.name, drawn)
    if instead is None:
        return drawn
    _overwrite(trial, param.name, instead)
    return instead


def _overwrite(trial: Trial, name: str, value: Value) -> None:
    storage, trial_id = trial.storage, trial._trial_id
    distribution = storage.get_trial(trial_id).distributions[name]
    storage.set_trial_param(trial_id, name, distribution.to_internal_repr(value), distribution)


def _mark(params: Mapping[str, Value]) -> int:
    """A number that equal params have and, but for a chance of one in 10^19, no others: texts would fill the memory."""
    told = ((name, each if isinstance(each, str) else float(each).hex()) for name, each in essential(params).items())
    return hash(tuple(sorted(told)))  # numbers as texts: -1 and -2 have one hash


def of_sampler(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """What a sampler noted of a trial. Its constraints are told apart from it, and a recipe is for the queue alone."""
    others = ("constraints", "fixed_params", "deepmine:")
    return {key: value for key, value in attrs.items() if not key.startswith(others)}
