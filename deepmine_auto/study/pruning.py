"""What a pruner is given: the study's reports, oriented so that larger is better, each step of a trial once.

A trial that went on from a checkpoint reports some steps twice; the first report of a step is the one that was judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from deepmine_auto.contracts import Direction, Pruner, Report, Verdict


def oriented(value: float, direction: Direction) -> float:
    """The value with its sign turned where smaller is better."""
    return value if direction == "maximize" else -value


def curve(rows: Iterable[Mapping[str, Any]], direction: Direction) -> list[Report]:
    """Rows of `reports` as a pruner sees them, in the order of seq."""
    seen: set[tuple[int, int]] = set()
    reports = []
    for row in rows:
        if row["kind"] != "trial" or (row["number"], row["step"]) in seen:
            continue
        seen.add((row["number"], row["step"]))
        reports.append(Report(row["number"], row["share"], oriented(row["value"], direction), row["seq"]))
    return reports


def judge(pruner: Pruner, reports: list[Report], seq: int) -> Verdict:
    """The verdict on the report `seq`, from the reports up to it: the same whenever it is asked for."""
    known = [each for each in reports if each.seq <= seq]
    judged = known[-1]
    return pruner.keep(known, judged.trial, judged.share)
