"""Replay: a recorded study once more, without training.

What workers reported is given; all that was decided from it is computed again, and compared: every proposal from what
was known when it was made, every verdict from the reports before it, every end, curve and final from all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial, TrialState, create_trial

from deepmine_auto.audit.checks_of_rows import Seen
from deepmine_auto.audit.record import Record
from deepmine_auto.audit.verifying import ALIVE, CHECKS, Check, checked
from deepmine_auto.contracts import Pruner, Sampler
from deepmine_auto.storage import tables
from deepmine_auto.storage.store import Row
from deepmine_auto.study.known import Known, held_against, known_of
from deepmine_auto.study.mirror import PROPOSED_BY, SAMPLER_ERROR, Mirror, of_sampler
from deepmine_auto.study.setting_aside import as_they_are, bar, set_aside


def replay(record: Record, sampler: Sampler, pruner: Pruner) -> list[Check]:
    """Compute everything again, with the plugins that the study was searched with."""
    seen = Seen(record, pruner, Path(record.study.folder), driven=True)
    again = Check.of("proposals", Again(record, sampler).compared())
    return [again, *(checked(each, seen) for each in CHECKS if each not in ALIVE)]


class Again:
    """The mirror of a recorded study, brought to where it stood at each proposal in turn."""

    def __init__(self, record: Record, sampler: Sampler) -> None:
        self.record, self.study = record, record.study
        self.trials = record.trials_by_number
        self.seed = int(self.study.spec["seed"])
        self.spaces = record.spaces
        self.plugins = record.rows(tables.plugins)
        evidence = record.rows(tables.evidence)
        self.mirror = Mirror(self.spaces, sampler, self.study.directions, self.seed, evidence)
        self.to_come = iter(self._first_reports())
        self.waiting = next(self.to_come, None)
        self.ended: dict[int, FrozenTrial] = {}

    def compared(self) -> Iterator[str]:
        """One finding a proposal: empty where it is the recorded one. Those of schema 0001, which do not say what was
        known, and those for which a sampler took too long are not made again."""
        for trial in self.trials:
            known = known_of(trial.system_attrs)
            if known is not None and not _too_late(trial):
                self._bring_to(trial.number, known)
                yield self._difference(trial)
            self.mirror.add(_running(trial), {}, {})

    def _first_reports(self) -> list[Row]:
        """What the mirror is told of: each step of a trial once; nothing beside several objectives."""
        seen: dict[tuple[int, int], Row] = {}
        for row in self.record.rows(tables.reports) if len(self.study.objectives) == 1 else ():
            if row["kind"] == "trial":
                seen.setdefault((row["number"], row["step"]), row)
        return list(seen.values())

    def _bring_to(self, number: int, known: Known) -> None:
        while self.waiting is not None and self.waiting["seq"] <= known.seq:
            self.mirror.report(self.waiting["number"], self.waiting["share"], self.waiting["value"])
            self.waiting = next(self.to_come, None)
        for trial in self.trials[:number]:
            if trial.number not in self.ended and trial.number not in known.running:
                self.ended[trial.number] = trial
                self.mirror.tell(trial.number, trial.state, trial.values, held_against(trial))

    def _difference(self, trial: FrozenTrial) -> str:
        out = set_aside(self.ended.values(), as_they_are(self.plugins, trial.number))
        again = self.mirror.ask(trial.number, bar(out, self.spaces.at(trial.number), self.seed, trial.number))
        before, now = _proposal(trial), _proposal(again)
        odd = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        told = ", ".join(f"{name} {before.get(name)} is now {now.get(name)}" for name in odd)
        return f"trial {trial.number} is proposed otherwise: {told}" if odd else ""


def _too_late(trial: FrozenTrial) -> bool:
    """Whether a clock decided: the sampler was not waited for any longer, and the trial was drawn at random."""
    return str(trial.user_attrs.get(SAMPLER_ERROR, "")).startswith(TimeoutError.__name__)


def _running(trial: FrozenTrial) -> FrozenTrial:
    """A trial's row as it was proposed."""
    row = create_trial(
        state=TrialState.RUNNING,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={name: each for name, each in trial.user_attrs.items() if name == SAMPLER_ERROR},
        system_attrs=of_sampler(trial.system_attrs),
    )
    row.number = trial.number
    return row


def _proposal(trial: FrozenTrial) -> Mapping[str, Any]:
    """What was proposed, by name: params with what they were drawn from, and what the sampler noted."""
    drawn = {name: (value, distribution_to_json(trial.distributions[name])) for name, value in trial.params.items()}
    told = {name: trial.user_attrs.get(name) for name in (SAMPLER_ERROR, PROPOSED_BY)}
    return {**drawn, **of_sampler(trial.system_attrs), **told}
