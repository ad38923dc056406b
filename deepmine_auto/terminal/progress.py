"""How far a study is, as plain values: a picture is taken between two messages, and may be drawn at any time after."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from optuna.trial import TrialState

from deepmine_auto.storage.store import Row
from deepmine_auto.study.agenda import Agenda
from deepmine_auto.study.finals import REPEATS, in_order, may_win
from deepmine_auto.study.pruning import oriented
from deepmine_auto.terminal.words import Scale, lead_words, model_words, scale_of

ENOUGH_TRIALS = 5
"""From so many ended trials on, the time that is left can be told."""

SEARCHING = "searching"
ENDINGS = ("done", "stopped")
"""Phases after which nothing is left to wait for."""

STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


@dataclass(frozen=True)
class Line:
    """A trial or rerun that runs, or the best trial; `share` in thousandths, `rank` among all trials' best values."""

    label: str
    words: str
    share: int = 0
    value: float | None = None
    curve: tuple[float, ...] = ()
    rank: int | None = None
    lead: str = ""


@dataclass(frozen=True)
class Progress:
    """A picture of a study. `share` is the used part of the budget, `left` the seconds that remain, if known."""

    phase: str
    best: Line | None
    running: tuple[Line, ...]
    counts: Mapping[str, int]
    asked: int | None
    share: float
    spent: float
    left: float | None
    scale: Scale


@dataclass(frozen=True)
class Beside:
    """The baseline that values are compared with: its name, and its validation score once it is known."""

    name: str
    value: Callable[[], float | None]

    def lead(self, value: float, agenda: Agenda) -> str:
        """How far a value is ahead, in words; empty while the baseline's is not known."""
        score = self.value()
        return "" if score is None else lead_words(value, score, self.name, agenda.ledger.direction)


def progress_of(agenda: Agenda, beside: Beside, phase: str | None = None) -> Progress:
    """Take a picture, where the agenda is worked on and in no other thread. `phase` is what follows the finals."""
    values = agenda.best_values()
    running = tuple(_running(agenda, *key, values) for key in agenda.running)
    best = _best(agenda, values, beside)
    shown = [value for line in (*running, *([best] if best else [])) for value in line.curve]
    counts = Counter(STATES.get(each.state, "running") for each in agenda.ledger.trials.values())
    ended = sum(counts[each] for each in STATES.values())
    return Progress(
        phase=phase or _phase(agenda),
        best=best,
        running=running,
        counts={**{each: counts[each] for each in STATES.values()}, "running": len(agenda.running)},
        asked=agenda.budget.trials,
        share=_share(agenda, ended),
        spent=agenda.ledger.spent,
        left=None if phase in ENDINGS else _left(agenda, ended),
        scale=scale_of(shown, agenda.ledger.direction),
    )


def words_of(agenda: Agenda, trial: int) -> str:
    """A trial's model in words."""
    ledger = agenda.ledger
    return model_words(ledger.params(trial))


def best_trial(agenda: Agenda, values: Mapping[int, float]) -> int | None:
    """The number of the trial with the best value so far, the earlier of two equal ones, among those that may win or
    still run."""
    trials = agenda.ledger.trials
    able = [each for each in values if not trials[each].state.is_finished() or may_win(trials[each])]
    return max(able, key=lambda each: (oriented(values[each], agenda.ledger.direction), -each), default=None)


def reopened_at(agenda: Agenda) -> int:
    """The number of the first rerun since the study was last reopened."""
    return int(agenda.ledger.study.spec.get("reopened", 0))


def _best(agenda: Agenda, values: Mapping[int, float], beside: Beside) -> Line | None:
    number = best_trial(agenda, values)
    if number is None:
        return None
    value = values[number]
    curve = _curve(agenda, "trial", number)
    return Line(f"trial {number}", words_of(agenda, number), value=value, curve=curve, lead=beside.lead(value, agenda))


def _running(agenda: Agenda, kind: str, number: int, values: Mapping[int, float]) -> Line:
    standing = agenda.ledger.history.standing.get((kind, number))
    last: Row | None = standing.reports[-1] if standing and standing.reports else None
    trial = agenda.ledger.reruns[number]["trial"] if kind == "rerun" else number
    again = f" ({agenda.ledger.reruns[number]['repeat'] + 1}/{REPEATS})" if kind == "rerun" else ""
    line = Line(f"{trial}{again}", words_of(agenda, trial))
    if last is None:
        return line
    rank = None if kind == "rerun" else _rank(values[number], values, agenda)
    return Line(line.label, line.words, last["share"], last["value"], _curve(agenda, kind, number), rank)


def _rank(value: float, values: Mapping[int, float], agenda: Agenda) -> int:
    mine = oriented(value, agenda.ledger.direction)
    return 1 + sum(oriented(each, agenda.ledger.direction) > mine for each in values.values())


def _curve(agenda: Agenda, kind: str, number: int) -> tuple[float, ...]:
    return tuple(row["value"] for row in agenda.ledger.history.standing[kind, number].reports)


def _phase(agenda: Agenda) -> str:
    reruns = agenda.ledger.reruns.values()
    if max(agenda.ledger.reruns, default=-1) < reopened_at(agenda):
        return SEARCHING
    wanted = {(row["trial"], row["repeat"]) for row in reruns} | {tuple(each) for each in in_order(agenda.finalists())}
    return f"finals {sum(row['state'] != 'RUNNING' for row in reruns)} of {len(wanted)}"


def _share(agenda: Agenda, ended: int) -> float:
    trials, seconds = agenda.budget.trials, agenda.budget.seconds
    shares = [ended / trials] if trials else []
    shares += [agenda.ledger.spent / seconds] if seconds else []
    shares += [agenda.ledger.gpu_hours / agenda.budget.gpu_hours] if agenda.budget.gpu_hours else []
    return min(1.0, max(shares, default=0.0))


def _left(agenda: Agenda, ended: int) -> float | None:
    seconds = agenda.seconds_left()
    times = [] if seconds is None else [max(0.0, seconds)]
    if agenda.budget.trials is not None and ended >= ENOUGH_TRIALS:
        over = agenda.stopped or _phase(agenda) != SEARCHING
        running = sum(kind == "trial" for kind, _ in agenda.running)
        times.append(_work_left(agenda, running if over else agenda.budget.trials - ended))
    return min(times, default=None)


def _work_left(agenda: Agenda, trials: int) -> float:
    costs = [each.user_attrs.get("seconds", 0.0) for each in agenda.ledger.trials.values() if each.state.is_finished()]
    begun = {(row["trial"], row["repeat"]) for row in agenda.ledger.reruns.values() if row["state"] != "RUNNING"}
    finals = [agenda.expected(each.trial) for each in in_order(agenda.finalists()) if each not in begun]
    work: float = statistics.fmean(costs) * max(0, trials) + sum(finals)
    refit = agenda.refit_seconds() if agenda.refit_seconds else 0.0
    return work / max(1, agenda.slots) + agenda.closing() + refit
