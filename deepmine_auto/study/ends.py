"""What is written of an end: pure functions of what the rows say and of the worker's last message."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from optuna.trial import FrozenTrial, TrialState

from deepmine_auto.errors import DeepmineError
from deepmine_auto.messages import Ended
from deepmine_auto.objectives import COSTS, Limit
from deepmine_auto.storage.store import Row, StudyRow, constraint_attrs
from deepmine_auto.study import pruning
from deepmine_auto.study.causes import ENDS
from deepmine_auto.study.history import History, Key
from deepmine_auto.study.showing import capped


class Told(NamedTuple):
    """The end of a trial as its row has it: a state's name, values, attributes, and how far it is over each limit."""

    state: str
    values: list[float] | None
    attrs: dict[str, Any]
    constraints: dict[str, float]


def told(history: History, number: int, message: Ended) -> Told:
    """What a trial's row will say of its end."""
    metrics = history.metrics_at_best(number)
    constraints = {str(each): each.excess(metrics) for each in history.study.limits} if metrics else {}
    state = ENDS[message.cause].state
    return Told(state.name, _values(history, number, message), _attrs(history, number, message), constraints)


def carry_out(trial: FrozenTrial, end: Told) -> None:
    """Say in memory what the row says."""
    trial.state, trial.values = TrialState[end.state], end.values
    trial.user_attrs = {**trial.user_attrs, **end.attrs}
    trial.system_attrs = {**trial.system_attrs, **constraint_attrs(end.constraints)}


def within_limits(history: History, number: int, message: Ended) -> Ended:
    """What is complete, but over a limit or without the value of an objective, may not stand as the best."""
    if ENDS[message.cause].state != TrialState.COMPLETE:
        return message
    if None in (_values(history, number, message) or ()):
        return replace(message, cause="diverged", reason="an objective is no number where the first is best")
    passed = _passed(history.study.limits, history.metrics_at_best(number))
    return replace(message, cause="limit", reason=passed) if passed else message


def costs_passed(history: History, key: Key) -> str:
    """The limits on costs that what runs passes, in words."""
    metrics = history.of(*key).reports[-1]["metrics"]
    return _passed(pruning.costs_passed(history.study.limits, metrics), metrics)


def rerun_within_limits(history: History, number: int, message: Ended) -> Ended:
    """A rerun that would count, but is over a limit, does not: its weights may be the ones that are exported."""
    passed = _passed(history.study.limits, history.metrics_at_best(number, "rerun")) if _counts(message) else ""
    return replace(message, cause="limit", reason=passed) if passed else message


def of_rerun(message: Ended) -> Row:
    """What a rerun's row will say of its end."""
    counts = _counts(message)
    return {
        "state": "COMPLETE" if counts else "FAIL",
        "value": message.value if counts else None,
        "checkpoint": message.checkpoint,
        "seconds": message.facts.get("seconds"),
        "reason": _text(message.reason) or message.cause,
    }


def _counts(message: Ended) -> bool:
    """Whether a rerun ended with a value; what the deadline cut off has one too."""
    done = ENDS[message.cause].state == TrialState.COMPLETE or message.cause == "deadline"
    return done and message.value is not None


def as_json(metrics: Mapping[str, float], study: StudyRow) -> Row:
    """Metrics as JSON has them: what is no number is null. Raises DeepmineError where an objective is missing."""
    for each in study.objectives:
        if each.name not in metrics:
            raise DeepmineError(f"The task '{study.spec['task']}' reports no '{each.name}'.")
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _values(history: History, number: int, message: Ended) -> list[float] | None:
    # Optuna's own convention: a pruned trial is shown at its last point, a complete one at the task's best
    state, reports = ENDS[message.cause].state, history.of("trial", number).reports
    if state == TrialState.FAIL or not reports:
        return None
    if len(history.study.objectives) > 1:
        metrics = history.metrics_at_best(number)
        return [metrics[each.name] for each in history.study.objectives] if state == TrialState.COMPLETE else None
    value = message.value if state == TrialState.COMPLETE else reports[-1]["value"]
    return None if value is None else [value]


def _attrs(history: History, number: int, message: Ended) -> Row:
    attrs: Row = {"cause": message.cause, **_costs(history, number), **message.facts}
    attrs |= {"reason": _text(message.reason)} if message.reason else {}
    attrs |= {"plugin": message.plugin} if message.plugin else {}
    attrs |= {"best_step": message.step, "checkpoint": message.checkpoint} if message.checkpoint else {}
    return capped(attrs)


def _costs(history: History, number: int) -> Row:
    """What the last report says of seconds and costs, as the numbers that a dashboard shows."""
    reports = history.of("trial", number).reports
    if not reports:
        return {}
    found = {name: reports[-1]["metrics"].get(name) for name in COSTS}
    return {"seconds": reports[-1]["seconds"], **{name: each for name, each in found.items() if each is not None}}


def _passed(limits: Iterable[Limit], metrics: Row) -> str:
    passed = [each for each in limits if each.excess(metrics) > 0]
    return ", ".join(f"{metrics.get(each.name)} is over the limit {each}" for each in passed)


def _text(reason: str) -> str:
    return reason.replace("\0", " ")  # PostgreSQL refuses it
