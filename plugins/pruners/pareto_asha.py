"""Successive halving for several objectives: at each rung, the trials that fewest others beat in everything go on.

A report is on front 1 where no other is at least as good in all objectives and better in one; on front 2 where only
those of front 1 are; and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from deepmine_auto import Report, Verdict

from .asha import Asha


@dataclass(frozen=True, kw_only=True)
class ParetoAsha(Asha):
    """The rungs of `asha`; the first fronts that hold one trial in `eta` go on, whole. With one objective it is `asha`,
    apart from equal values."""

    name: ClassVar[str] = "pareto_asha"
    source: ClassVar[str] = "arXiv:2106.12639"

    def verdict(self, judged: Report, rung: int, there: Sequence[Report]) -> Verdict:
        """Judge by fronts: `value` is the report's own front and `cutoff` the last that goes on, 1 being the best."""
        if len(there) < self.eta:
            return Verdict(keep=True, rung=rung)
        fronts = fronts_of([each.values for each in there])
        own = fronts[next(at for at, each in enumerate(there) if each.trial == judged.trial)]
        cutoff = sorted(fronts)[len(there) // self.eta - 1]
        return Verdict(own <= cutoff, own, cutoff, rung)


def fronts_of(points: Sequence[tuple[float, ...]]) -> list[int]:
    """The front of each point, from 1; larger is better in every place."""
    fronts = [0] * len(points)
    left = set(range(len(points)))
    front = 1
    while left:
        best = {each for each in left if not any(_dominates(points[other], points[each]) for other in left)}
        for each in best:
            fronts[each] = front
        left, front = left - best, front + 1
    return fronts


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))
