"""Texts without labels: which of a user's may be learned from beside the rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from deepmine_auto.data.read import read_loose
from deepmine_auto.data.split import essence
from deepmine_auto.errors import BadInput

WORD = re.compile(r"[^\W\d_]+")
FEW_WORDS = 0.4
"""Of two halves of the rows, one knows some share of the other's words. Texts of which it knows less than this part of
that share are in another language: in English it was .45 to 1.0 between news, tweets, questions, mails and intents, in
German, Spanish and French .01 to .36."""

LEAST_ROWS, LEAST_SHARE = 100, 0.2
"""With fewer rows, or where rows do not share words (Chinese has no blanks), nothing can be told."""

LOOKED_AT = 2_000


def read_unlabelled(path: Path, text_column: str | None, inputs: Sequence[str]) -> list[str]:
    """Read the texts of a file that are no input of a row, each once: what stands in the test must not be learned from,
    and what stands in train is known better. Raises BadInput where none is left, or the language is another one."""
    texts = read_loose(path, text_column)
    known = {essence(each) for each in inputs}
    fresh = {plain: each for each in texts if (plain := essence(each)) not in known}
    if not fresh:
        raise BadInput(f"All {len(texts):,} texts of {path} are rows of the data too.", "Give others, or leave it out.")
    refuse_other_language(path, list(fresh.values()), inputs)
    return list(fresh.values())


def refuse_other_language(path: Path, texts: Sequence[str], inputs: Sequence[str]) -> None:
    """Raise BadInput where texts of a file know too few words of the rows."""
    if len(inputs) < LEAST_ROWS:
        return
    words = set(_words(inputs[::2]))
    own, theirs = _share(inputs[1::2], words), _share(texts, words)
    if own > LEAST_SHARE and theirs < FEW_WORDS * own:
        what = f"The rows know {own:.0%} of each other's words, and {theirs:.0%} of those of {path}: another language?"
        raise BadInput(what, "Give texts like those of the rows.")


def _share(texts: Sequence[str], words: set[str]) -> float:
    """Which share of the words of some of the texts, taken evenly, is known."""
    found = _words(texts[:: -(-len(texts) // LOOKED_AT)])
    return sum(each in words for each in found) / max(1, len(found))


def _words(texts: Iterable[str]) -> list[str]:
    return [word for each in texts for word in WORD.findall(each.casefold())]
