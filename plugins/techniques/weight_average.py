"""Stochastic weight averaging: what is judged and exported is the mean of the weights after each of the last steps.

The last steps of a training circle around a better place than any of them comes to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from deepmine_auto import Applied, Float, Technique, TrainingFacts

from .ema import Average


@dataclass(frozen=True, kw_only=True)
class WeightAverage(Technique):
    """From the share `start` of the training on every step counts alike; before it, the model's own weights are judged.
    Training itself goes on as without it. A trial whose patience ends before `start` has averaged nothing."""

    name: ClassVar[str] = "weight_average"
    source: ClassVar[str] = "arXiv:1803.05407"
    touches = frozenset({"judged"})

    start: Annotated[float, Float(0.5, 0.9)] = 0.75

    def build(self, facts: TrainingFacts) -> Applied:
        """Make the mean of the model's weights; frozen weights and buffers are not averaged."""
        first = int(self.start * facts.steps)
        return Average(lambda step: _kept(step - first), facts.model)


def _kept(counted: int) -> float:
    """What a mean keeps when one more joins the `counted` before it; nothing while there are none."""
    return counted / (counted + 1) if counted > 0 else 0.0
