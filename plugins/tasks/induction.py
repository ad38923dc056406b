"""Induction: what followed this symbol the last time?"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from deepmine_auto import Rows, Source, Tagging


@dataclass(frozen=True, kw_only=True)
class Induction(Tagging):
    """Random symbols in which one stands twice: its second place, the row's last, asks for what followed the first."""

    name: ClassVar[str] = "induction"
    source: ClassVar[str] = "arXiv:2209.11895"
    space: ClassVar[str] = "diagnostics"

    count: int = 4_000
    symbols: int = 16
    length: int = 64

    def read(self, source: Source) -> Rows:
        """Read the user's files, or make the rows where there are none. Raises BadInput."""
        return super().read(source) if source.files else self._made(Random(0))

    def _made(self, rng: Random) -> Rows:
        made = [self._row(rng) for _ in range(self.count)]
        return Rows([" ".join(symbols) for symbols, _ in made], [answers for _, answers in made])

    def _row(self, rng: Random) -> tuple[list[str], str]:
        asked, *others = rng.sample([f"s{each}" for each in range(self.symbols)], self.symbols)
        symbols = rng.choices(others, k=self.length - 1)
        at = rng.randrange(self.length - 2)
        symbols[at] = asked
        return [*symbols, asked], " ".join(["_"] * (self.length - 1) + [symbols[at + 1]])
