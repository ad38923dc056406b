"""How a trial is trained, apart from its optimizer and schedule: length, batches, patience, warm-up."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from deepmine_auto.contracts import Schedule
from deepmine_auto.space import Choice, Float, Int
from deepmine_auto.training.batching import batches_of

MOST_REPORTS = 200
"""No trial reports more often, so that the study database stays small."""

FEWEST_REPORTS = 9
"""No trial reports less often, unless its evaluations would be dear."""

DEAR = 0.25
"""Evaluations are dear where they would take more than this share of what the steps take."""

THINNED = ((1, 3, 5, 7, 9), (1, 3, 9))
"""The ninths of a trial after which it is evaluated where evaluations are dear, and where these still are."""

READINGS = 3
"""A step takes as long as reading its rows so often: forward once, and backward twice that."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Params `training/...`: epochs, rows a batch, evaluations without a new best before stopping, norm that gradients
    are clipped to, the most rows that are read in all, 0 for as many as epochs have, and what batches have in common.

    That is `batch` rows, or about as many tokens with padding: then `batch` is the mean number of rows, short texts
    stand in larger batches than long ones, and an epoch has as many steps as with rows. A loss is as a rule a mean over
    the rows of a batch, so with tokens a row weighs more the longer it is.
    """

    epochs: Annotated[int, Int(1, 200)] = 12
    batch: Annotated[int, Choice(8, 16, 32, 64, 128, 256)] = 32
    batching: Annotated[str, Choice("rows", "tokens", searched=False)] = "rows"
    patience: Annotated[int, Int(1, 200)] = 4
    clip: Annotated[float, Float(0.1, 10.0, log=True)] = 1.0
    rows: Annotated[int, Int(0, 10**12, searched=False)] = 0

    def reads(self, rows: int) -> int:
        """How many rows are read in all, each as often as it is read, where there are so many."""
        return min(self.epochs * rows, self.rows or self.epochs * rows)

    def steps(self, rows: int) -> int:
        """The steps of a trial on so many rows."""
        whole = self.epochs * batches_of(rows, self.batch)
        return min(whole, batches_of(self.rows, self.batch)) if self.rows else whole

    def read_in(self, steps: int, rows: int) -> int:
        """How many of so many rows are read in the first steps, about: a batch by tokens has more or fewer."""
        return min(rows, round(max(0, steps) * rows / batches_of(rows, self.batch)))

    def evaluations(self, steps: int, judged: int = 0) -> list[int]:
        """The steps after which a trial of `steps` is evaluated on `judged` rows; the last is always one of them."""
        count = min(steps, MOST_REPORTS, max(self.epochs, FEWEST_REPORTS))
        most = DEAR * READINGS * self.batch * steps / max(1, judged)
        # rounded up: the first ninth of 130 steps is step 15, because step 14 is not yet at the rung of 111 thousandths
        if count <= most or count < FEWEST_REPORTS:
            return [math.ceil(steps * (each + 1) / count) for each in range(count)]
        ninths = next((each for each in THINNED if len(each) <= most), THINNED[-1])
        return [math.ceil(steps * each / 9) for each in ninths]


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """Param `schedule/warmup`: the share of the steps in which the learning rate rises, whichever schedule follows."""

    warmup: Annotated[float, Float(0.0, 0.3)] = 0.06


def rate_factor(warm_up: WarmUp, schedule: Schedule, step: int, steps: int) -> float:
    """What multiplies the learning rate at `step` (from 0) of `steps`: up from near 0 to 1, then what the schedule
    says."""
    warm = warm_up.warmup * steps
    if step < warm:
        return (step + 1) / (warm + 1)
    return schedule.factor(min(1.0, (step - warm) / (steps - warm)))
