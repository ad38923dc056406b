"""Hypothesis strategies from the ranges that plugins declare, so that a promise is kept in every corner of them."""

from __future__ import annotations

from typing import Any, TypeVar

from hypothesis import strategies as st

from deepmine_auto.contracts import Plugin
from deepmine_auto.space import Choice, Int, Range, ranges

P = TypeVar("P", bound=Plugin)


def drawn(cls: type[P]) -> st.SearchStrategy[P]:
    """Instances of a plugin class, each searched field anywhere in its range; the others keep their defaults."""
    return st.builds(cls, **{name: _values(each) for name, each in ranges(cls).items()})


def _values(each: Range) -> st.SearchStrategy[Any]:
    if isinstance(each, Choice):
        return st.sampled_from(each.options)
    ends = st.sampled_from((each.low, each.high))  # where most faults are
    if isinstance(each, Int):
        return ends | st.sampled_from(range(each.low, each.high + 1, each.step))
    return ends | st.floats(each.low, each.high)
