"""Reversal: say a row of symbols backwards. The smallest task of a source and a target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from deepmine_auto import Tagging


@dataclass(frozen=True, kw_only=True)
class Reversal(Tagging):
    """The source, the separator, and the target so far; the answer to each token of the target is the next one."""

    name: ClassVar[str] = "reversal"
    source: ClassVar[str] = "arXiv:1409.3215"
    space: ClassVar[str] = "pairs"
    mode = "causal"
    pairs = True

    count: int = 4_000
    symbols: int = 12
    longest: int = 12

    def made(self, rng: Random) -> Iterator[tuple[str, str]]:
        """Make the rows."""
        return (self._row(rng) for _ in range(self.count))

    def _row(self, rng: Random) -> tuple[str, str]:
        said = [f"s{rng.randrange(self.symbols)}" for _ in range(rng.randint(2, self.longest))]
        back = said[::-1]
        return " ".join([*said, "|", *back[:-1]]), " ".join(["_"] * len(said) + back)
