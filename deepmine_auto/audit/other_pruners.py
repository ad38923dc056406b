"""Another pruner on a recorded study: what it would have saved, and what it would have lost.

A comparison stands on one study's trials. It ranks pruners for curves like these; it is no measurement of a search.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import TrialState

from deepmine_auto.audit.record import Record
from deepmine_auto.contracts import Pruner, Report
from deepmine_auto.errors import BadInput
from deepmine_auto.storage import tables
from deepmine_auto.study.finals import FINALISTS
from deepmine_auto.study.pruning import judge


@dataclass(frozen=True)
class PrunerOutcome:
    """What a pruner would have done to the trials whose whole curves are known.

    stopped: at which share of its own length, in thousandths, it would have stopped which. saved_steps, saved_seconds:
    shares of what these trials took. kept: how many of the best three it would have let finish. regret: how much worse
    than the best of them, when all are trained to their end, is the one that would have ranked first.
    """

    pruner: str
    whole: int
    stopped: Mapping[int, int]
    saved_steps: float
    saved_seconds: float
    winner_kept: bool
    kept: int
    regret: float


def with_pruner(record: Record, pruner: Pruner) -> PrunerOutcome:
    """Judge the recorded reports, in their order, by another pruner. Raises BadInput where no trial is known whole.

    Only trials that ran to their end are counted: where another pruner would have let a stopped one go on, nobody knows
    how that would have ended. Those are competitors as far as they came. A trial that is stopped here falls silent from
    then on; that its worker would have begun the next trial sooner is not simulated.
    """
    whole = {each.number for each in record.trials_by_number if each.state == TrialState.COMPLETE}
    if not whole:
        raise BadInput("No trial of this study ran to its end.", "Record one with --pruner none.")
    stops, reports = _stops(record, pruner), record.history.reports
    best = {number: max(each.value for each in reports if each.trial == number) for number in whole}
    stopped = {number: each for number, each in stops.items() if number in whole}
    ranked = sorted(whole, key=lambda each: (-best[each], each))
    first = min(whole, key=lambda each: (-_reached(each, stopped, reports), each in stopped, each))
    steps, seconds = _saved(record, whole, stopped)
    return PrunerOutcome(
        pruner=pruner.name,
        whole=len(whole),
        stopped={number: each.share for number, each in sorted(stopped.items())},
        saved_steps=steps,
        saved_seconds=seconds,
        winner_kept=ranked[0] not in stopped,
        kept=sum(each not in stopped for each in ranked[:FINALISTS]),
        regret=best[ranked[0]] - best[first],
    )


def _stops(record: Record, pruner: Pruner) -> dict[int, Report]:
    """The report at which each trial would have been stopped."""
    stops: dict[int, Report] = {}
    known: list[Report] = []
    for report in record.history.reports:
        if report.trial not in stops:
            known.append(report)
            if not judge(pruner, known, report.seq).keep:
                stops[report.trial] = report
    return stops


def _reached(number: int, stopped: Mapping[int, Report], reports: Sequence[Report]) -> float:
    """The best value of a trial by when it would have ended."""
    last = stopped[number].seq if number in stopped else math.inf
    return max(each.value for each in reports if each.trial == number and each.seq <= last)


def _saved(record: Record, whole: set[int], stopped: Mapping[int, Report]) -> tuple[float, float]:
    """The shares of steps and of seconds that would not have been trained."""
    history = record.history
    at = {row["seq"]: row for row in record.rows(tables.reports)}
    lasts = {number: history.of("trial", number).reports[-1] for number in whole}

    def share(column: str) -> float:
        spent = sum(float(lasts[each][column]) for each in whole)
        saved = sum(float(lasts[each][column]) - float(at[stop.seq][column]) for each, stop in stopped.items())
        return saved / spent if spent else 0.0

    return share("step"), share("seconds")
