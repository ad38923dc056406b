"""Successive halving for several objectives: at each rung, the trials that fewest others beat in everything go on.

A report is on front 1 where no other is at least as good in all objectives and better in one; on front 2 where only
those of front 1 are; and so on.

Shapes: N reports, M objectives, P those before one in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

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
    if not points:
        return []
    values_NM = np.array(points, float)
    order_N = np.lexsort(-values_NM.T[::-1])
    values_NM, fronts_N = values_NM[order_N], np.ones(len(points), int)
    for place, values_M in enumerate(values_NM):  # what beats a point stands before it in this order
        before_PM = values_NM[:place]
        beat_P = (before_PM >= values_M).all(1) & (before_PM != values_M).any(1)
        fronts_N[place] += fronts_N[:place][beat_P].max(initial=0)
    back_N = np.argsort(order_N)
    return [int(each) for each in fronts_N[back_N]]
