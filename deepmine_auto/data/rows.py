"""Rows as they are handed from room to room: raw inputs with their labels, before anything is fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Source:
    """Where a user's rows are: files by part (`all` for one file to be split), and the columns if they were named."""

    files: Mapping[str, Path] = field(default_factory=dict)
    text_column: str | None = None
    label_column: str | None = None


class Extra(NamedTuple):
    """What a user gives beside the rows: inputs without labels, and other words for inputs, as pairs of both."""

    unlabelled: Sequence[Any] = ()
    paraphrases: Sequence[Sequence[Any]] = ()


NOTHING_MORE = Extra()


@dataclass(frozen=True)
class Rows:
    """Inputs and labels side by side; `parts` names the part of each row where the user fixed it; `notes` is what the
    user should be told (duplicates removed, labels that differ only in case)."""

    inputs: Sequence[Any]
    labels: Sequence[Any]
    parts: Sequence[str] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, indices: Sequence[int]) -> Rows:
        """Return the rows at these indices."""
        parts = None if self.parts is None else [self.parts[i] for i in indices]
        return Rows([self.inputs[i] for i in indices], [self.labels[i] for i in indices], parts, self.notes)
