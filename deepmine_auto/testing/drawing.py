"""Hypothesis strategies from the ranges that plugins declare, so that a promise is kept in every corner of them."""

from __future__ import annotations

from typing import Any, TypeVar

from hypothesis import strategies as st

from deepmine_auto.contracts import Plugin
from deepmine_auto.space import Choice, Int, Range, ranges

P = TypeVar("P", bound=Plugin)


def drawn(cls: type[P]) -> st.SearchStrategy[P]:
    """Instances of a plugin class, each searched field anywhere in its range; the others keep their defaults."""
    return st.builds(cls, **{name: _values(each) for name, each in _searched(cls).items()})


def corners(cls: type[P]) -> tuple[P, P]:
    """Two instances: every searched field at the lower end of its range, and every one at the upper end."""
    ends = {name: _ends(each) for name, each in _searched(cls).items()}
    return cls(**{name: low for name, (low, _) in ends.items()}), cls(
        **{name: high for name, (_, high) in ends.items()}
    )


def _searched(cls: type[Plugin]) -> dict[str, Range]:
    return {name: each for name, each in ranges(cls).items() if getattr(each, "searched", True)}


def _ends(each: Range) -> tuple[Any, Any]:
    return (each.options[0], each.options[-1]) if isinstance(each, Choice) else (each.low, each.high)


def _values(each: Range) -> st.SearchStrategy[Any]:
    if isinstance(each, Choice):
        return st.sampled_from(each.options)
    ends = st.sampled_from((each.low, each.high))  # where most faults are
    if isinstance(each, Int):
        return ends | st.sampled_from(range(each.low, each.high + 1, each.step))
    return ends | st.floats(each.low, each.high)
