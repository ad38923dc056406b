"""Asynchronous successive halving: at each rung, only the best of those who came so far go on.

No state: the verdict of a report is a function of the reports up to it, so a restart gives it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from deepmine_auto import BadInput, Choice, Int, Pruner, Report, Verdict

LAST = 900
"""From this share on, in thousandths, a trial is left to finish: a stop would save too little."""


@dataclass(frozen=True, kw_only=True)
class Asha(Pruner):
    """Rungs stand at `first`, `first * eta`, `first * eta^2`, ... thousandths of a trial's own budget.

    A trial is judged at its first report at or past a rung, by the value of that report, among all trials that have
    come as far by then; the best one in `eta` go on. With fewer than `eta` trials there, it goes on."""

    name: ClassVar[str] = "asha"
    source: ClassVar[str] = "arXiv:1810.05934"

    eta: Annotated[int, Choice(2, 3, 4)] = 3
    first: Annotated[int, Int(10, 500, log=True)] = 111

    def __post_init__(self) -> None:
        if self.eta < 2 or self.first < 1:
            raise BadInput(f"asha has no rungs with eta {self.eta}, first {self.first}.", "Give eta >= 2, first >= 1.")

    def rungs(self) -> Sequence[int]:
        """The rungs below 900, in thousandths: 111 and 333 by default."""
        rungs = []
        rung = self.first
        while rung < LAST:
            rungs.append(rung)
            rung *= self.eta
        return rungs

    def keep(self, reports: Sequence[Report], trial: int, share: int) -> Verdict:
        """Judge `trial` at its first report of `share`, by the reports up to that one; they stand in the order of seq.

        Where one report passes several rungs, the highest counts."""
        if share >= LAST:
            return Verdict(keep=True)
        own = [each for each in reports if each.trial == trial]
        judged = next(each for each in own if each.share == share)
        before = max((each.share for each in own if each.seq < judged.seq), default=0)
        rung = max((each for each in self.rungs() if before < each <= share), default=None)
        if rung is None:
            return Verdict(keep=True)
        there = _first_at(rung, (each for each in reports if each.seq <= judged.seq))
        return self.verdict(judged, rung, there)

    def verdict(self, judged: Report, rung: int, there: Sequence[Report]) -> Verdict:
        """Judge a report among those of all trials that have come to `rung`, its own among them."""
        if len(there) < self.eta:
            return Verdict(keep=True, value=judged.value, rung=rung)
        cutoff = sorted((each.value for each in there), reverse=True)[len(there) // self.eta - 1]
        return Verdict(judged.value >= cutoff, judged.value, cutoff, rung)


def _first_at(rung: int, reports: Iterable[Report]) -> Sequence[Report]:
    """The first report of each trial at or past a rung."""
    first: dict[int, Report] = {}
    for each in reports:
        if each.share >= rung:
            first.setdefault(each.trial, each)
    return list(first.values())
