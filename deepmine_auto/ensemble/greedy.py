"""Which models to average: greedy selection with replacement (Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble
selection from libraries of models", ICML 2004).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Picked(NamedTuple):
    """Models by their index, one as often as it was picked, and what they are worth together."""

    picks: tuple[int, ...]
    worth: float


def greedy(models: int, worth: Callable[[Sequence[int]], float], most: int) -> Picked | None:
    """Pick `most` times the model that makes the mean of all picks worth most, and return the best of the sets that
    were gone through and have two models at least; None where the picks are all of one.

    Of models that are worth the same the one that was picked least is taken, of equal sets the largest: on few rows
    scores are often equal, and the mean of more models depends less on each.
    """
    gone: list[Picked] = []
    picks: tuple[int, ...] = ()
    for _ in range(most):
        values = {each: worth((*picks, each)) for each in range(models)}
        best = max(values, key=lambda each: (values[each], -picks.count(each), -each))
        picks = (*picks, best)
        gone.append(Picked(picks, values[best]))
    several = [each for each in gone if len({*each.picks}) > 1]
    return max(several, key=lambda each: (each.worth, len(each.picks)), default=None)
