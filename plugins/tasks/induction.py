"""Induction: what followed this symbol the last time?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import ClassVar

from deepmine_auto import Tagging


@dataclass(frozen=True, kw_only=True)
class Induction(Tagging):
    """Each row is a line of different symbols, then asks for all but the last, in another order, what followed them
    there. A symbol is key and value at once, so one layer cannot do it: the first must note what stood before."""

    name: ClassVar[str] = "induction"
    source: ClassVar[str] = "arXiv:2209.11895"
    space: ClassVar[str] = "diagnostics"

    count: int = 4_000
    symbols: int = 32
    length: int = 16

    def made(self, rng: Random) -> Iterator[tuple[str, str]]:
        """Make the rows."""
        return (self._row(rng) for _ in range(self.count))

    def _row(self, rng: Random) -> tuple[str, str]:
        line = rng.sample([f"s{each}" for each in range(self.symbols)], self.length)
        following = dict(pairwise(line))
        asked = rng.sample(line[:-1], self.length - 1)
        return " ".join([*line, *asked]), " ".join(["_"] * self.length + [following[each] for each in asked])
