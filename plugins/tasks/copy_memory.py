"""Copy memory: say again, after a long silence, what was said before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from deepmine_auto import Tagging


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

    def made(self, rng: Random) -> Iterator[tuple[str, str]]:
        """Make the rows."""
        unasked = ["_"] * (self.payload + self.silence)
        for _ in range(self.count):
            secret = [f"s{rng.randrange(self.symbols)}" for _ in range(self.payload)]
            said = [*secret, *["-"] * self.silence, *["?"] * self.payload]
            yield " ".join(said), " ".join([*unasked, *secret])
