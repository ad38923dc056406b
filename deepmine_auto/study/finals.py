"""The finals: the best trials trained again, on other splits and seeds, before a winner is named. Where the user gave
validation rows, seeds alone differ.

The highest validation score of a search is biased: it is the luckiest. Everything here is a function of rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from itertools import islice
from statistics import fmean, stdev
from typing import NamedTuple

from optuna.trial import FrozenTrial, TrialState

from deepmine_auto.contracts import Direction
from deepmine_auto.storage.store import Row
from deepmine_auto.study.pruning import oriented

NEVER = ("diverged", "limit")
"""Causes of an end after which a trial cannot win."""

FINALISTS = 3
REPEATS = 3

BY_CHANCE = {2: 6.31, 3: 2.92}
"""So many standard errors may a mean lead over so many reruns come to by chance: Student's t, one-sided, 95 %. That is
a little too sure, because the splits share most of their rows, and the winner was chosen by the same values. Where the
user gave validation rows, and seeds alone differ, it is a lead on these rows, whatever others would say."""


class Rerun(NamedTuple):
    """A finalist's number, and which of its reruns."""

    trial: int
    repeat: int


class Winner(NamedTuple):
    """The trial that is recommended, the rerun whose weights are exported (None: not rerun), and its values."""

    trial: int
    rerun: int | None
    values: tuple[float, ...]


def finalists(
    trials: Iterable[FrozenTrial],
    best: Mapping[int, float],
    direction: Direction,
    able_here: Callable[[int], bool] = lambda _: True,
) -> list[int]:
    """The best trials by their best value. One that was stopped competes by its best checkpoint: what the deadline cut
    off may lead all that ended. Of equal ones those that are complete come first.

    `able_here` says whether a trial can be trained again; it is asked of the best alone.
    """
    able = [each for each in trials if each.number in best and may_win(each)]
    able.sort(
        key=lambda each: (-oriented(best[each.number], direction), each.state != TrialState.COMPLETE, each.number)
    )
    return list(islice((each.number for each in able if able_here(each.number)), FINALISTS))


def may_win(trial: FrozenTrial) -> bool:
    """Whether a trial may win: it ended with weights that count, and nothing speaks against it."""
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and feasible(trial)


def feasible(trial: FrozenTrial) -> bool:
    """Whether nothing speaks against a trial so far: it did not diverge, and keeps every limit of the study."""
    return trial.user_attrs.get("cause") not in NEVER and all(each <= 0 for each in trial.constraints.values())


def in_order(numbers: Sequence[int]) -> list[Rerun]:
    """All reruns, the ones that matter most first: one of each of the first two, three of each, then the third."""
    first, rest = numbers[:2], numbers[2:]
    order = [Rerun(trial, repeat) for repeat in range(REPEATS) for trial in first]
    return order + [Rerun(trial, repeat) for trial in rest for repeat in range(REPEATS)]


def winner(
    numbers: Sequence[int], reruns: Iterable[Row], best: Mapping[int, float], direction: Direction
) -> Winner | None:
    """The finalist with the best mean, among those with as many reruns as the one with the second most has: where the
    time ends between two reruns of one repeat, nobody wins for having had the first. Without any rerun, the best trial.

    The means are over the repeats that all of them have: one whose rerun failed is not compared on another split."""
    values: dict[int, list[Row]] = {number: [] for number in numbers}
    for row in reruns:
        if row["state"] == "COMPLETE" and row["trial"] in values:
            values[row["trial"]].append(row)
    most, second, *_ = [*sorted(map(len, values.values()), reverse=True), 0, 0]
    if not most:
        return Winner(numbers[0], None, (best[numbers[0]],)) if numbers else None
    shared = second or most
    able = {number: rows for number, rows in values.items() if len(rows) >= shared}
    common = set.intersection(*({row["repeat"] for row in rows} for rows in able.values()))
    number = max(able, key=lambda each: oriented(_mean(able[each], common, shared), direction))
    rows = values[number]
    exported = max(rows, key=lambda row: oriented(row["value"], direction))
    return Winner(number, exported["number"], tuple(row["value"] for row in rows))


def as_good(won: int, reruns: Iterable[Row], direction: Direction) -> list[int]:
    """The others of which the reruns do not show that the winner `won` is better: over the repeats that both have, its
    mean lead is within chance. One shows nothing, and neither does none."""
    values: dict[int, dict[int, float]] = {}
    for row in reruns:
        if row["state"] == "COMPLETE":
            values.setdefault(row["trial"], {})[row["repeat"]] = oriented(row["value"], direction)
    own = values.pop(won, {})
    leads = {trial: [own[each] - its[each] for each in its if each in own] for trial, its in values.items()}
    return sorted(trial for trial, each in leads.items() if not _beyond_chance(each))


def _beyond_chance(leads: Sequence[float]) -> bool:
    if len(leads) < min(BY_CHANCE):
        return False
    return fmean(leads) > BY_CHANCE[len(leads)] * stdev(leads) / math.sqrt(len(leads))


def _mean(rows: Sequence[Row], repeats: Container[int], most: int) -> float:
    """The mean value over these repeats; where there are none, over so many in their order."""
    return fmean([row["value"] for row in rows if row["repeat"] in repeats] or [row["value"] for row in rows[:most]])
