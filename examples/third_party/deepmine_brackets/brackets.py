"""Is a row of brackets closed as it was opened? Counting words cannot tell; attention can."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Annotated, ClassVar

from deepmine_auto import Choice, Rows, Source, TextClassification

PAIRS = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, kw_only=True)
class Brackets(TextClassification):
    """Half of the rows are balanced (Dyck words of three brackets); in the others two closing ones changed places."""

    name: ClassVar[str] = "brackets"
    source: ClassVar[str] = "arXiv:1911.01329"

    tokens: Annotated[str, Choice("word")] = "word"
    count: int = 1_200
    longest: int = 12

    def read(self, source: Source) -> Rows:
        """Make the rows; a user's own files are read as usual."""
        if source.files:
            return super().read(source)
        rng = Random(0)
        texts = sorted({_balanced(rng, rng.randint(3, self.longest)) for _ in range(self.count)})
        rows = [(text, "balanced") if rng.random() < 0.5 else _spoilt(text, rng) for text in texts]
        return Rows([" ".join(text) for text, _ in rows], [label for _, label in rows])


def _balanced(rng: Random, pairs: int) -> str:
    text, open_ones = "", ""
    while pairs or open_ones:
        if pairs and (not open_ones or rng.random() < 0.5):
            open_ones += rng.choice("([{")
            text, pairs = text + open_ones[-1], pairs - 1
        else:
            text, open_ones = text + PAIRS[open_ones[-1]], open_ones[:-1]
    return text


def _spoilt(text: str, rng: Random) -> tuple[str, str]:
    """Swap two different closing brackets: the counts stay the same. Where all are alike, the row stays balanced."""
    closing = [at for at, each in enumerate(text) if each in PAIRS.values()]
    pairs = [(a, b) for a in closing for b in closing if a < b and text[a] != text[b]]
    if not pairs:
        return text, "balanced"
    a, b = rng.choice(pairs)
    return text[:a] + text[b] + text[a + 1 : b] + text[a] + text[b + 1 :], "broken"
