"""Induction: what followed this symbol the last time?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from deepmine_auto import Tagging


@dataclass(frozen=True, kw_only=True)
class Induction(Tagging):
    """Random symbols in which one stands twice: its second place, the row's last, asks for what followed the first."""

    name: ClassVar[str] = "induction"
    source: ClassVar[str] = "arXiv:2209.11895"
    space: ClassVar[str] = "diagnostics"

    count: int = 4_000
    symbols: int = 16
    length: int = 64

    def made(self, rng: Random) -> Iterator[tuple[str, str]]:
        """Make the rows."""
        return (self._row(rng) for _ in range(self.count))

    def _row(self, rng: Random) -> tuple[str, str]:
        asked, *others = rng.sample([f"s{each}" for each in range(self.symbols)], self.symbols)
        symbols = rng.choices(others, k=self.length - 1)
        at = rng.randrange(self.length - 2)
        symbols[at] = asked
        return " ".join([*symbols, asked]), " ".join(["_"] * (self.length - 1) + [symbols[at + 1]])
