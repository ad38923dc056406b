"""Multi-query associative recall: which value stood beside this key?"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from deepmine_auto import Rows, Source, Tagging


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

    def read(self, source: Source) -> Rows:
        """Read the user's files, or make the rows where there are none. Raises BadInput."""
        return super().read(source) if source.files else self._made(Random(0))

    def _made(self, rng: Random) -> Rows:
        made = [self._row(rng) for _ in range(self.count)]
        return Rows([symbols for symbols, _ in made], [answers for _, answers in made])

    def _row(self, rng: Random) -> tuple[str, str]:
        keys = rng.sample(range(self.keys), self.pairs_a_row)
        values = {key: f"v{rng.randrange(self.keys)}" for key in keys}
        asked = rng.sample(keys, len(keys))
        told = [each for key in keys for each in (f"k{key}", values[key])]
        return (
            " ".join([*told, *(f"k{key}" for key in asked)]),
            " ".join(["_"] * len(told) + [values[key] for key in asked]),
        )
