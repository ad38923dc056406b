"""What a pruner is given: the study's reports, oriented so that larger is better, each step of a trial once.

A trial that went on from a checkpoint reports some steps twice; the first report of a step is the one that was judged.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from deepmine_auto.contracts import Direction, Pruner, Report, Verdict
from deepmine_auto.messages import OUT_OF_PATIENCE, WHOLE
from deepmine_auto.objectives import COSTS, Limit, Objective


def oriented(value: float, direction: Direction) -> float:
    """The value with its sign turned where smaller is better."""
    return value if direction == "maximize" else -value


def seen(row: Mapping[str, Any], objectives: Sequence[Objective], limits: Iterable[Limit] = ()) -> Report:
    """A row of `reports` as a pruner sees it."""
    first, *others = objectives
    value = oriented(row["value"], first.direction)
    values = (value, *(_oriented_or_worst(row["metrics"][each.name], each.direction) for each in others))
    last = row["share"] >= WHOLE or OUT_OF_PATIENCE in row["metrics"]
    able = not costs_passed(limits, row["metrics"])
    return Report(row["number"], row["share"], value, row["seq"], values, last, able)


def costs_passed(limits: Iterable[Limit], metrics: Mapping[str, float | None]) -> list[Limit]:
    """The limits on costs that metrics pass. A cost does not change while a model learns; a score may be met later."""
    return [each for each in limits if each.name in COSTS and each.excess(metrics) > 0]


def _oriented_or_worst(value: float | None, direction: Direction) -> float:
    return -math.inf if value is None else oriented(value, direction)


def curve(
    rows: Iterable[Mapping[str, Any]], objectives: Sequence[Objective], limits: Iterable[Limit] = ()
) -> list[Report]:
    """Rows of `reports` as a pruner sees them, in the order of seq."""
    judged: set[tuple[int, int]] = set()
    reports = []
    for row in rows:
        if row["kind"] == "trial" and (row["number"], row["step"]) not in judged:
            judged.add((row["number"], row["step"]))
            reports.append(seen(row, objectives, limits))
    return reports


def judge(pruner: Pruner, reports: list[Report], seq: int) -> Verdict:
    """The verdict on the report `seq`, from the reports up to it: the same whenever it is asked for. They stand in the
    order of seq. Nobody is measured by models that may not win."""
    known = reports[: bisect_right(reports, seq, key=lambda each: each.seq)]
    judged = known[-1]
    able = [each for each in known if each.able or each.trial == judged.trial]
    return pruner.keep(able, judged.trial, judged.share)
