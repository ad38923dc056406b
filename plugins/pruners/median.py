"""The median rule: a trial stops when its best value so far is below that of most others at the same share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Annotated, ClassVar

from deepmine_auto import Int, Pruner, Report, Verdict

WHOLE = 1000
"""A trial's own budget in thousandths: who has come so far is not stopped."""


@dataclass(frozen=True, kw_only=True)
class Median(Pruner):
    """Judges every report past `warmup` thousandths, once `others` more trials have come as far.

    Best values are compared with best values, so that one bad evaluation stops nobody."""

    name: ClassVar[str] = "median"
    source: ClassVar[str] = "https://doi.org/10.1145/3097983.3098043"

    warmup: Annotated[int, Int(0, 900)] = 200
    others: Annotated[int, Int(1, 100, log=True)] = 4

    def keep(self, reports: Sequence[Report], trial: int, share: int) -> Verdict:
        """Judge `trial` at its first report of `share`, by the reports up to that one, in the order of seq."""
        if share < self.warmup or share >= WHOLE:
            return Verdict(keep=True)
        judged = next(each.seq for each in reports if each.trial == trial and each.share == share)
        best = _best_by(share, [each for each in reports if each.seq <= judged])
        value = best.pop(trial)
        if len(best) < self.others:
            return Verdict(keep=True, value=value)
        cutoff = median(best.values())
        return Verdict(value >= cutoff, value, cutoff)


def _best_by(share: int, reports: Sequence[Report]) -> dict[int, float]:
    """The best value up to `share` of each trial that has come as far."""
    arrived = {each.trial for each in reports if each.share >= share}
    best: dict[int, float] = {}
    for each in reports:
        if each.trial in arrived and each.share <= share:
            best[each.trial] = max(each.value, best.get(each.trial, each.value))
    return best
