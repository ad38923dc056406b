"""Copy memory: say again, after a long silence, what was said before it."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from deepmine_auto import Rows, Source, Tagging


@dataclass(frozen=True, kw_only=True)
class CopyMemory(Tagging):
    """A secret of `payload` symbols, `silence` blanks, then a cue for each symbol of the secret. A model that forgets
    is right once in `symbols` times."""

    name: ClassVar[str] = "copy_memory"
    source: ClassVar[str] = "arXiv:1511.06464"
    space: ClassVar[str] = "diagnostics"

    count: int = 4_000
    symbols: int = 8
    payload: int = 8
    silence: int = 40

    def read(self, source: Source) -> Rows:
        """Read the user's files, or make the rows where there are none. Raises BadInput."""
        return super().read(source) if source.files else self._made(Random(0))

    def _made(self, rng: Random) -> Rows:
        secrets = [[f"s{rng.randrange(self.symbols)}" for _ in range(self.payload)] for _ in range(self.count)]
        blanks, cues = ["-"] * self.silence, ["?"] * self.payload
        unasked = ["_"] * (self.payload + self.silence)
        return Rows(
            [" ".join([*each, *blanks, *cues]) for each in secrets], [" ".join([*unasked, *each]) for each in secrets]
        )
