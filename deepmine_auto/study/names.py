"""Under which names params stand in rows.

Optuna refuses a param whose choices, kind, log or step change within a study. Such a param goes on under the next
name, `attention/kind@2`, and `space.plain` takes the suffix off again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import count

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from deepmine_auto.space import Choice, Int, Range


def distribution_of(each: Range) -> BaseDistribution:
    """A range in Optuna's words."""
    if isinstance(each, Choice):
        return CategoricalDistribution(each.options)
    if isinstance(each, Int):
        return IntDistribution(each.low, each.high, each.log, each.step)
    return FloatDistribution(**asdict(each))


class Names:
    """The names that a study has used, each with the distribution that it was used with."""

    def __init__(self) -> None:
        self.used: dict[str, BaseDistribution] = {}

    def note(self, distributions: Mapping[str, BaseDistribution]) -> None:
        """Take over the names of a row."""
        self.used.update(distributions)

    def written(self, name: str, now: BaseDistribution) -> str:
        """The first of `name`, `name@2`, `name@3`, ... that is free, or was used for the same param as it is now."""
        return next(each for each in _numbered(name) if each not in self.used or _same(self.used[each], now))


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}@{number}" for number in count(2))


def _same(one: BaseDistribution, other: BaseDistribution) -> bool:
    if isinstance(one, IntDistribution | FloatDistribution) and isinstance(other, IntDistribution | FloatDistribution):
        return type(one) is type(other) and (one.log, one.step) == (other.log, other.step)
    return distribution_to_json(one) == distribution_to_json(other)  # to Python alone, 1 and True are one choice
