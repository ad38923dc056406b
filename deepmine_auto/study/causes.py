"""What each end becomes, and how often a trial is handed out again: two tables."""

from __future__ import annotations

from typing import NamedTuple

from optuna.trial import TrialState

from deepmine_auto.messages import Because, Cause


class End(NamedTuple):
    """What becomes of a trial: its state, and whether its params are to blame."""

    state: TrialState
    infeasible: bool


ENDS: dict[Cause, End] = {
    "budget": End(TrialState.COMPLETE, False),
    "patience": End(TrialState.COMPLETE, False),
    "pruned": End(TrialState.PRUNED, False),
    "deadline": End(TrialState.PRUNED, False),
    "limit": End(TrialState.PRUNED, True),
    "diverged": End(TrialState.PRUNED, True),
    "memory": End(TrialState.FAIL, True),
    "plugin": End(TrialState.FAIL, True),
    "error": End(TrialState.FAIL, False),
    "lost": End(TrialState.FAIL, True),  # one worker after the other went with it
    "cancelled": End(TrialState.FAIL, False),
}


class Again(NamedTuple):
    """How often a trial may be handed out again, counted over all attempts made for one of these reasons."""

    counted: frozenset[Because]
    most: int


_GONE: frozenset[Because] = frozenset({"lost", "hung"})

AGAIN: dict[Because, Again] = {
    "lost": Again(_GONE, 4),
    "hung": Again(_GONE, 4),
    "preempted": Again(frozenset(), 1),  # whoever takes the machine away is to blame: it is not counted
    "memory": Again(frozenset({"memory"}), 16),  # each time with half as many rows: they are one before that
}
"""A trial that takes its worker with it is tried five times in all."""
