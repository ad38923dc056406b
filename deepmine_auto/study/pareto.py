"""The Pareto front: what no other point beats."""

from __future__ import annotations

from collections.abc import Sequence

from deepmine_auto.contracts import Direction
from deepmine_auto.study.pruning import oriented


def front(points: Sequence[Sequence[float]], directions: Sequence[Direction]) -> list[int]:
    """The indices, in order, of the points that no other point dominates: is nowhere worse than, and somewhere better.

    A point has one value for each direction. Equal points stand on the front together.
    """
    turned = [tuple(map(oriented, point, directions)) for point in points]
    found: list[int] = []
    # a point is larger, as a tuple, than all that it dominates: who stands on the front comes before whom it beats
    for index in sorted(range(len(turned)), key=lambda each: turned[each], reverse=True):
        if not any(_dominates(turned[other], turned[index]) for other in found):
            found.append(index)
    return sorted(found)


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return one != other and all(mine >= its for mine, its in zip(one, other, strict=True))
