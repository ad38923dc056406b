"""What was known when a trial was proposed: it is noted in the trial's own row, so that it can be proposed again.

Trials are proposed by number, and a report has its seq; but with several workers no row says whether a trial ended
before or after another was proposed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from optuna.trial import FrozenTrial

from deepmine_auto.study.causes import ENDS
from deepmine_auto.study.mirror import INFEASIBLE

LIMITS = "constraints:"
"""How the system attributes begin that say how far a trial is over each limit."""

ATTRIBUTE = "deepmine:known"
"""The system attribute of a trial's row."""


class Known(NamedTuple):
    """The last report's seq, and the numbers of the trials that had no end yet."""

    seq: int
    running: tuple[int, ...]


def write_known(row: FrozenTrial, seq: int, trials: Iterable[FrozenTrial]) -> None:
    """Note in a row that is about to be written what its proposal was made from."""
    running = [each.number for each in trials if not each.state.is_finished()]
    row.system_attrs[ATTRIBUTE] = {"seq": seq, "running": running}


def known_of(attrs: dict[str, Any]) -> Known | None:
    """Read it from system attributes; None in rows of schema 0001."""
    found = attrs.get(ATTRIBUTE)
    return Known(int(found["seq"]), tuple(found["running"])) if found else None


def held_against(trial: FrozenTrial) -> dict[str, float]:
    """How far an ended trial is over each constraint, as the sampler is told: the study's limits, and what its params
    caused. Nothing is held against one that runs, though a killed driver may have begun to write its end."""
    if not trial.state.is_finished():
        return {}
    cause = trial.user_attrs.get("cause")
    blamed = {INFEASIBLE: 1.0} if cause in ENDS and ENDS[cause].infeasible else {}
    limits = {key.removeprefix(LIMITS): each for key, each in trial.system_attrs.items() if key.startswith(LIMITS)}
    return limits | blamed
