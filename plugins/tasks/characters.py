"""Character language modelling: which character comes next? On the tweets that the package carries."""

from __future__ import annotations

import html
from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from typing import ClassVar

from deepmine_auto import Rows, Source, Tagging

SPACE, RARE, UNDERSCORE = "\u2423", "\u25a1", "\uff3f"
FEWEST = 20
"""A character that is rarer stands as RARE."""


@dataclass(frozen=True, kw_only=True)
class Characters(Tagging):
    """Windows of `length` characters, lower case; the answer to each is the one after it. `log_loss` is in nats a
    character: divide by 0.693 for bits."""

    name: ClassVar[str] = "characters"
    source: ClassVar[str] = "arXiv:1808.04444"
    own_data: ClassVar[str] = "tweets"
    space: ClassVar[str] = "diagnostics"
    objective: ClassVar[str] = "log_loss"
    mode = "causal"

    length: int = 128

    def read(self, source: Source) -> Rows:
        """Read the user's files, or cut the tweets where there are none. Raises BadInput."""
        return super().read(source) if source.files else self._cut(_tweets())

    def _cut(self, text: str) -> Rows:
        text = text.replace("_", UNDERSCORE)  # as an answer, `_` says that none is asked
        counts = Counter(text)
        symbols = [SPACE if each.isspace() else each if counts[each] >= FEWEST else RARE for each in text]
        starts = range(0, len(symbols) - self.length, self.length)
        windows = [symbols[at : at + self.length + 1] for at in starts]
        return Rows([" ".join(each[:-1]) for each in windows], [" ".join(each[1:]) for each in windows])


def _tweets() -> str:
    text = (files("deepmine_plugins.tasks.tweets") / "tweets_GroundTruth.txt").read_text(encoding="utf-8")
    return "\n".join(html.unescape(line.split("\t", 2)[2]).strip().lower() for line in text.splitlines())
