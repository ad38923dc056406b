"""Batches of texts of like length, so that padding is small; the order is a function of seed and epoch.

Shapes: B batch, L length, N rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file

from deepmine_auto.contracts import Batch

BUCKET_BATCHES = 16
"""Rows are sorted by length within runs of so many batches: little padding, and still random."""


@dataclass(frozen=True, eq=False)
class Columns:
    """Token ids of N rows, end to end, where each row begins, and the targets. Kept in a file that workers map."""

    tokens: np.ndarray
    offsets: np.ndarray
    targets: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], targets: np.ndarray | None = None) -> Columns:
        """Lay rows end to end; without targets they are zeros, which mean nothing."""
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        tokens = np.fromiter((token for row in rows for token in row), dtype=np.int32, count=int(offsets[-1]))
        return cls(tokens, offsets, np.zeros(len(rows), np.int64) if targets is None else targets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """The number of tokens of each row, (N,)."""
        return np.diff(self.offsets)

    def save(self, file: Path) -> None:
        """Write the columns as safetensors."""
        save_file({"tokens": self.tokens, "offsets": self.offsets, "targets": self.targets}, file)

    @classmethod
    def load(cls, file: Path) -> Columns:
        """Map what `save` wrote: all workers of a machine share its memory."""
        return cls(**{name: each.numpy() for name, each in load_file(file).items()})

    def by_target(self) -> dict[int, list[np.ndarray]]:
        """Token ids of rows by their target, a number."""
        found = defaultdict[int, list[np.ndarray]](list)
        for row, target in enumerate(self.targets.tolist()):
            found[target].append(self.tokens[self.offsets[row] : self.offsets[row + 1]])
        return dict(found)

    def batch(self, indices: np.ndarray | Sequence[int], device: torch.device | str = "cpu") -> Batch:
        """Pad the rows at `indices` to the longest of them."""
        indices = np.asarray(indices)
        lengths = self.lengths[indices]
        padded_BL = np.zeros((len(indices), int(lengths.max())), dtype=np.int64)
        for row, index in enumerate(indices):
            padded_BL[row, : lengths[row]] = self.tokens[self.offsets[index] : self.offsets[index + 1]]
        keep_BL = np.arange(padded_BL.shape[1]) < lengths[:, None]
        arrays = padded_BL, keep_BL, self.targets[indices], indices
        return Batch(*(torch.from_numpy(each).to(device) for each in arrays))


def training_order(
    lengths: np.ndarray, size: int, seed: Sequence[int], odds: np.ndarray | None = None
) -> list[np.ndarray]:
    """The batches of one epoch: every row once, or as many rows drawn by their odds; rows of like length together,
    batches in random order."""
    rng = np.random.default_rng(seed)
    rows = len(lengths)
    shuffled = rng.permutation(rows) if odds is None else rng.choice(rows, rows, p=odds / odds.sum())
    runs = np.array_split(shuffled, max(1, -(-len(lengths) // (size * BUCKET_BATCHES))))
    ordered = np.concatenate([run[np.argsort(lengths[run], kind="stable")] for run in runs])
    batches = [ordered[at : at + size] for at in range(0, len(ordered), size)]
    return [batches[each] for each in rng.permutation(len(batches))]


def training_batches(
    lengths: np.ndarray, size: int, seed: int, begin: int, odds: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """The batches from step `begin` on, epoch after epoch, without an end."""
    first, at = divmod(begin, -(-len(lengths) // size))
    for epoch in count(first):
        yield from training_order(lengths, size, [seed, epoch], odds)[at if epoch == first else 0 :]


def evaluation_order(lengths: np.ndarray, size: int, tokens: int) -> Iterator[np.ndarray]:
    """Batches of all rows by length, each of at most `size` rows and, where it has two or more, of at most `tokens`
    tokens with padding; the caller puts the outputs back in place."""
    ordered, begin = np.argsort(lengths, kind="stable"), 0
    for end in range(1, len(ordered) + 1):
        more = end + 1 - begin
        if end == len(ordered) or more > size or more * lengths[ordered[end]] > tokens:
            yield ordered[begin:end]
            begin = end
