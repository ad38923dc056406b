"""Pretrained word vectors, and the bundled ones.

Shapes: V vocabulary, W words that have a vector, E dim of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from deepmine_auto.errors import BadInput


@dataclass(frozen=True, eq=False)
class Vectors:
    """Words, most frequent first, and a vector for each: float32 (W, E)."""

    words: tuple[str, ...]
    table_WE: np.ndarray

    def of(self, vocabulary: Mapping[str, int]) -> np.ndarray:
        """Return a row for each token id, (V, E); tokens without a vector have zeros."""
        table_VE = np.zeros((len(vocabulary), self.table_WE.shape[1]), np.float32)
        known = [(vocabulary[word], at) for at, word in enumerate(self.words) if word in vocabulary]
        if known:
            ids, rows = zip(*known, strict=True)
            table_VE[list(ids)] = self.table_WE[list(rows)]
        return table_VE


def read_vectors(folder: Path) -> Vectors:
    """Read `words.txt`, one word a line, and `vectors` of `vectors.safetensors`. Raises BadInput."""
    try:
        words = (folder / "words.txt").read_text(encoding="utf-8").splitlines()
        table_WE = load_file(folder / "vectors.safetensors")["vectors"].astype(np.float32)
    except (OSError, KeyError, UnicodeDecodeError, SafetensorError) as error:
        raise BadInput(f"There are no word vectors in {folder}: {error}.", "Install deepmine-auto again.") from error
    if table_WE.ndim != 2 or len(words) != len(table_WE):
        what = f"{folder} holds {len(words)} words and a table of shape {table_WE.shape}."
        raise BadInput(what, "Install deepmine-auto again.")
    return Vectors(tuple(words), table_WE)


@cache
def glove() -> Vectors:
    """The bundled vectors: the 20,000 most frequent words of GloVe 6B 50d (Pennington et al., EMNLP 2014; PDDL 1.0)."""
    with as_file(files("deepmine_auto.data") / "glove") as folder:
        return read_vectors(folder)
