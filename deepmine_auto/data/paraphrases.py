"""Other words for a user's texts: which of them may be learned from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deepmine_auto.data.read import read_pairs
from deepmine_auto.data.split import essence
from deepmine_auto.data.unlabelled import refuse_other_language
from deepmine_auto.errors import BadInput

COLUMN = "paraphrase"


def read_paraphrases(
    path: Path, text_column: str | None, inputs: Sequence[str], locked: Sequence[str]
) -> list[tuple[str, str]]:
    """Read pairs of a text and a paraphrase, each once, of which the text is one of `inputs`, and written as there.

    What paraphrases a text of the `locked` test is left out, and so is a paraphrase that is a row by itself. Raises
    BadInput where none is left, or the paraphrases are in another language.
    """
    given = read_pairs(path, COLUMN, text_column)
    own, tested = {essence(each): each for each in inputs}, {essence(each) for each in locked}
    pairs = {(essence(text), essence(words)): words for text, words in given}
    fresh = [(own[text], pairs[text, words]) for text, words in pairs
             if text in own and text not in tested and words not in own and words not in tested]  # fmt: skip
    if not fresh:
        what = f"None of the {len(given):,} rows of {path} has other words for a text that is trained on."
        raise BadInput(what, "Give the texts as they stand in the data, each beside its paraphrase.")
    refuse_other_language(path, [words for _, words in fresh], inputs)
    return fresh
