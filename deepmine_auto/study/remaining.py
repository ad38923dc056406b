"""What remains of a search space that has an end: nothing is trained twice while something else is left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from deepmine_auto.errors import DeepmineError
from deepmine_auto.space import Choice, Int, Param, Range, Space, Value

MOST = 10_000
"""A space of more params than that has no end in practice."""


class UsedUp(DeepmineError):
    """Every trial that a search space can say was begun."""


def refuse_used_up(left: Sequence[Mapping[str, Value]] | None) -> None:
    """Raise UsedUp where nothing is left; None has no end."""
    if left is not None and not left:
        raise UsedUp("All that this search space can say was tried.", "Go on with a wider one: resume --space FILE.")


def all_of(space: Space) -> list[dict[str, Value]] | None:
    """All that a space can draw; None where that has no end."""
    try:
        found = list(islice(_drawn(space.fixed, space.params, {}), MOST + 1))
    except _EndlessError:
        return None
    return found if len(found) <= MOST else None


class _EndlessError(Exception):
    """A number may be any in a range."""


def _drawn(fixed: Mapping[str, Value], params: Sequence[Param], drawn: dict[str, Value]) -> Iterator[dict[str, Value]]:
    if not params:
        yield drawn
        return
    first, *others = params
    if not first.active({**fixed, **drawn}):
        yield from _drawn(fixed, others, drawn)
        return
    for value in _values(first.range):
        yield from _drawn(fixed, others, {**drawn, first.name: value})


def _values(values: Range) -> Sequence[Value]:
    if isinstance(values, Choice):
        return values.options
    if not isinstance(values, Int):
        raise _EndlessError
    return range(values.low, values.high + 1, values.step)
