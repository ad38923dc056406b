"""A needle in a haystack: one fact among filler, asked for at the end, in rows of several lengths."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from deepmine_auto import Rows, Source, Tagging

LENGTHS = (32, 64, 128, 256)


@dataclass(frozen=True, kw_only=True)
class Needle(Tagging):
    """The fact is a mark and the value behind it; the haystack holds other values, without the mark. Each row has one
    of four lengths, and the fact stands anywhere."""

    name: ClassVar[str] = "needle"
    source: ClassVar[str] = "arXiv:2407.01437"
    space: ClassVar[str] = "diagnostics"

    count: int = 3_000
    values: int = 16

    def read(self, source: Source) -> Rows:
        """Read the user's files, or make the rows where there are none. Raises BadInput."""
        return super().read(source) if source.files else self._made(Random(0))

    def _made(self, rng: Random) -> Rows:
        made = [self._row(rng, LENGTHS[at % len(LENGTHS)]) for at in range(self.count)]
        return Rows([symbols for symbols, _ in made], [answers for _, answers in made])

    def _row(self, rng: Random, length: int) -> tuple[str, str]:
        symbols = [f"v{rng.randrange(self.values)}" for _ in range(length - 1)]
        at = rng.randrange(length - 2)
        symbols[at] = "mark"
        return " ".join([*symbols, "mark"]), " ".join(["_"] * (length - 1) + [symbols[at + 1]])
