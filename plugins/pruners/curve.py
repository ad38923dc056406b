"""Curves that cannot catch up: beside successive halving, a trial stops where even a good end would leave it behind.

No state: the verdict of a report is a function of the reports up to it, so a restart gives it again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from deepmine_auto import Float, Int, Report, Verdict

from .asha import LAST, Asha
from .median import WHOLE


@dataclass(frozen=True, kw_only=True)
class Curve(Asha):
    """Stops what `asha` stops, and at every report besides whoever would not come among the best `places`.

    How a trial would end is its best value so far and what trials that came to their end, and not before this share,
    still gained from it on: the `hope` quantile of these gains, nearest above. It is asked once there are as many of
    these as `asha`'s `eta` and `places`, whichever is more."""

    name: ClassVar[str] = "curve"
    source: ClassVar[str] = "arXiv:1705.10823"

    hope: Annotated[float, Float(0.5, 1.0)] = 0.9
    places: Annotated[int, Int(1, 10)] = 3

    def keep(self, reports: Sequence[Report], trial: int, share: int) -> Verdict:
        """Judge `trial` at its first report of `share`, by the reports up to that one, in the order of seq."""
        verdict = super().keep(reports, trial, share)
        if not verdict.keep or share >= LAST:
            return verdict
        judged = next(each.seq for each in reports if each.trial == trial and each.share == share)
        curves = _curves([each for each in reports if each.seq <= judged])
        ended = [each for number, each in curves.items() if number != trial and each[-1].last]
        as_far = [each for each in ended if each[-1].share >= share]
        if len(as_far) < max(self.eta, self.places):
            return verdict
        gains = sorted(_best(each, WHOLE) - _best(each, share) for each in as_far)
        value = _best(curves[trial], share) + gains[math.ceil(self.hope * len(gains)) - 1]
        cutoff = sorted((_best(each, WHOLE) for each in ended), reverse=True)[self.places - 1]
        return verdict if value >= cutoff else Verdict(False, value, cutoff)


def _curves(reports: Sequence[Report]) -> dict[int, list[Report]]:
    curves: dict[int, list[Report]] = {}
    for each in reports:
        curves.setdefault(each.trial, []).append(each)
    return curves


def _best(curve: Sequence[Report], share: int) -> float:
    """The best value up to a share, or the first one where there was none by then."""
    return max(each.value for each in curve if each.share <= max(share, curve[0].share))
