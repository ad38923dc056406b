"""ListOps: what is the value of a nested list of operations on digits?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from statistics import median
from typing import Annotated, ClassVar

from deepmine_auto import Choice, Rows, Source, TextClassification

OPERATIONS: dict[str, Callable[[Sequence[int]], int]] = {
    "max": max,
    "min": min,
    "med": lambda digits: int(median(digits)),
    "sm": lambda digits: sum(digits) % 10,
}


@dataclass(frozen=True, kw_only=True)
class ListOps(TextClassification):
    """MAX, MIN, MED and the sum modulo 10, nested up to `depth` deep, in rows of at most `longest` symbols; the answer
    is a digit. Much shorter than in the Long Range Arena (up to 2,000), so that minutes suffice."""

    name: ClassVar[str] = "list_ops"
    source: ClassVar[str] = "arXiv:1804.06028"
    space: ClassVar[str] = "diagnostics"

    tokens: Annotated[str, Choice("word")] = "word"
    count: int = 6_000
    depth: int = 3
    longest: int = 100

    def read(self, source: Source) -> Rows:
        """Read the user's files, or make the rows where there are none. Raises BadInput."""
        return super().read(source) if source.files else self._made(Random(0))

    def _made(self, rng: Random) -> Rows:
        found: dict[str, str] = {}
        while len(found) < self.count:
            symbols, value = expression(rng, self.depth)
            if 8 <= len(symbols) <= self.longest:
                found[" ".join(symbols)] = str(value)
        return Rows([*found], [*found.values()])


def expression(rng: Random, depth: int) -> tuple[list[str], int]:
    """Draw an operation on two to five digits, or operations while there is depth; return its symbols and value."""
    name = rng.choice([*OPERATIONS])
    parts = [_part(rng, depth) for _ in range(rng.randint(2, 5))]
    symbols = [each for part, _ in parts for each in part]
    return ["(", name, *symbols, ")"], OPERATIONS[name]([value for _, value in parts])


def _part(rng: Random, depth: int) -> tuple[list[str], int]:
    if depth and rng.random() < 0.25:
        return expression(rng, depth - 1)
    value = rng.randrange(10)
    return [str(value)], value
