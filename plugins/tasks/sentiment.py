"""Is a text positive or negative? With 4,200 tweets to begin with."""

from __future__ import annotations

import html
from dataclasses import dataclass
from importlib.resources import files
from typing import ClassVar

from deepmine_auto import Rows, Source, TextClassification


@dataclass(frozen=True, kw_only=True)
class Sentiment(TextClassification):
    """Positive or negative, in your own files, or in the tweets of VADER (Hutto and Gilbert, ICWSM 2014).

    Twenty people rated each tweet from -4 to 4; a mean of zero or more is positive here.
    """

    name: ClassVar[str] = "sentiment"
    source: ClassVar[str] = "https://doi.org/10.1609/icwsm.v8i1.14550"
    own_data: ClassVar[str] = "tweets"

    def read(self, source: Source) -> Rows:
        """Read the user's files, or the tweets where there are none. Raises BadInput."""
        return super().read(source) if source.files else _tweets()


def _tweets() -> Rows:
    text = (files("deepmine_plugins.tasks.tweets") / "tweets_GroundTruth.txt").read_text(encoding="utf-8")
    rows = [line.split("\t", 2) for line in text.splitlines()]
    labels = ["positive" if float(rating) >= 0 else "negative" for _, rating, _ in rows]
    return Rows([html.unescape(tweet).strip() for _, _, tweet in rows], labels)
