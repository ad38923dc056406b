"""Gradient accumulation: a batch that is larger than what memory holds at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from deepmine_auto import Applied, Choice, Technique, TrainingFacts


@dataclass(frozen=True, kw_only=True)
class GradientAccumulation(Technique):
    """Work each batch off in so many `parts` at least, so that the activations of one of them are in memory at a time.

    The weights move as if the batch were whole, also where its loss is no mean over rows: the outputs of all parts are
    there before the loss, and the activations are computed again for its gradient, a part at a time. So a step takes a
    second forward pass, and dropout is drawn otherwise. Nothing is touched but time and memory.
    """

    name: ClassVar[str] = "gradient_accumulation"
    source: ClassVar[str] = "arXiv:1604.06174"
    touches: ClassVar[frozenset[Any]] = frozenset()

    parts: Annotated[int, Choice(2, 4, 8, 16)] = 4

    def build(self, facts: TrainingFacts) -> Applied:
        """Make what asks for the parts; it knows nothing of the trial."""
        del facts
        return _Accumulated(self.parts)


class _Accumulated(Applied):
    def __init__(self, parts: int) -> None:
        self.asked = parts

    def parts(self) -> int:
        """Return how many were asked for."""
        return self.asked
