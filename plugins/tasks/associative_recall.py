"""Multi-query associative recall: which value stood beside this key?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from deepmine_auto import Tagging


@dataclass(frozen=True, kw_only=True)
class AssociativeRecall(Tagging):
    """Each row pairs keys with values, then asks for all of them in another order. What cannot look back at single
    tokens, or has too small a state, cannot do it."""

    name: ClassVar[str] = "associative_recall"
    source: ClassVar[str] = "arXiv:2312.04927"
    space: ClassVar[str] = "diagnostics"

    count: int = 4_000
    keys: int = 16
    pairs_a_row: int = 8

    def made(self, rng: Random) -> Iterator[tuple[str, str]]:
        """Make the rows."""
        return (self._row(rng) for _ in range(self.count))

    def _row(self, rng: Random) -> tuple[str, str]:
        keys = rng.sample(range(self.keys), self.pairs_a_row)
        values = {key: f"v{rng.randrange(self.keys)}" for key in keys}
        asked = rng.sample(keys, len(keys))
        told = [each for key in keys for each in (f"k{key}", values[key])]
        return (
            " ".join([*told, *(f"k{key}" for key in asked)]),
            " ".join(["_"] * len(told) + [values[key] for key in asked]),
        )
