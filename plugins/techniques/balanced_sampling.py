"""Balanced sampling: rows of rare classes are drawn more often.

Shapes: N rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from deepmine_auto import Applied, Choice, Technique, TrainingFacts


@dataclass(frozen=True, kw_only=True)
class BalancedSampling(Technique):
    """Rows are drawn by 1 / E of their class, where E = (1 - beta ** n) / (1 - beta) is how many its n rows count for.

    With `beta` 0 rows are drawn alike, towards 1 classes are. An epoch is as long as without it: some rows come twice,
    others not at all. Class weights of the task's loss come on top. Where targets are no classes, nothing is changed.
    """

    name: ClassVar[str] = "balanced_sampling"
    source: ClassVar[str] = "arXiv:1901.05555"
    touches = frozenset({"input"})
    one_answer = True

    beta: Annotated[float, Choice(0.9, 0.99, 0.999, 0.9999)] = 0.999

    def build(self, facts: TrainingFacts) -> Applied:
        """Make what weighs the rows; it knows nothing of the trial."""
        del facts
        return _Balanced(self.beta)


class _Balanced(Applied):
    def __init__(self, beta: float) -> None:
        self.beta = beta

    def odds(self, targets: np.ndarray) -> np.ndarray | None:
        """Return 1 / E (N,) of each row's class; None for targets that are not one class a row."""
        if targets.ndim != 1 or not np.issubdtype(targets.dtype, np.integer):
            return None
        _, class_N, rows_C = np.unique(targets, return_inverse=True, return_counts=True)
        odds_C: np.ndarray = (1 - self.beta) / (1 - self.beta**rows_C)
        return odds_C[class_N]
