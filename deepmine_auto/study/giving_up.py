"""When a search is given up: the last trials all failed, and no plugin or limit explains it. The rows decide."""

from __future__ import annotations

from collections.abc import Iterable

from optuna.trial import FrozenTrial, TrialState

from deepmine_auto.errors import DeepmineError
from deepmine_auto.messages import last_line

IN_A_ROW = 5
"""So many failures in a row that no plugin and no limit explains end the search."""

UNEXPLAINED = ("error", "lost")


class AllFailed(DeepmineError):
    """Too many trials in a row failed without a plugin to blame."""


def refuse_failing(trials: Iterable[FrozenTrial], told: int, typed: str) -> None:
    """Raise AllFailed where the last trials that ended all failed unexplained, or where none ended well and these asked
    for what cannot be; unless the user was told that up to trial `told`: whoever goes on after that has seen to it."""
    ended = sorted((each for each in trials if each.state.is_finished()), key=lambda each: each.number)
    last = ended[-IN_A_ROW:]
    if len(last) < IN_A_ROW or last[-1].number <= told:
        return
    unexplained = [each.user_attrs.get("cause") in UNEXPLAINED for each in last]
    nobodys = [known or _impossible(each) for known, each in zip(unexplained, last, strict=True)]
    if all(unexplained) or (all(nobodys) and all(each.state == TrialState.FAIL for each in ended)):
        found = last[-1].user_attrs
        reason = last_line(str(found.get("reason", ""))) or found["cause"]
        raise AllFailed(f"The last trials all failed: {reason}.", f"See `deepmine-auto trials {typed}`.")


def _impossible(trial: FrozenTrial) -> bool:
    """Whether the params asked for what cannot be, so that there is no plugin to set aside."""
    return trial.user_attrs.get("cause") == "plugin" and "plugin" not in trial.user_attrs
