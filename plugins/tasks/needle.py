"""A needle in a haystack: one fact among filler, asked for at the end, in rows of several lengths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from deepmine_auto import Tagging

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

    def made(self, rng: Random) -> Iterator[tuple[str, str]]:
        """Make the rows."""
        return (self._row(rng, LENGTHS[at % len(LENGTHS)]) for at in range(self.count))

    def _row(self, rng: Random, length: int) -> tuple[str, str]:
        symbols = [f"v{rng.randrange(self.values)}" for _ in range(length - 1)]
        at = rng.randrange(length - 2)
        symbols[at] = "mark"
        return " ".join([*symbols, "mark"]), " ".join(["_"] * (length - 1) + [symbols[at + 1]])
