"""Batches of texts of like length, so that padding is small; the order is a function of seed and epoch.

Shapes: B batch, L length, N rows.
"""

from __future__ import annotations

from bisect import bisect_left
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


def batches_of(rows: int, size: int) -> int:
    """How many batches an epoch has, of at most so many rows on average."""
    return -(-rows // size)


def training_order(
    lengths: np.ndarray, size: int, seed: Sequence[int], odds: np.ndarray | None = None, batching: str = "rows"
) -> list[np.ndarray]:
    """The batches of one epoch: every row once, or as many rows drawn by their odds; rows of like length together,
    batches in random order. Each has `size` rows or, where they do not divide, a row or more less, as all others have:
    a last batch of a few would be those of the longest rows, each a step for itself. Or each has about as many of its
    run's tokens as the others."""
    rng = np.random.default_rng(seed)
    rows = len(lengths)
    shuffled = rng.permutation(rows) if odds is None else rng.choice(rows, rows, p=odds / odds.sum())
    runs = np.array_split(shuffled, _runs(rows, size))
    ordered = np.concatenate([run[np.argsort(lengths[run], kind="stable")] for run in runs])
    batches = np.array_split(ordered, batches_of(rows, size))
    if batching == "tokens":
        batches = _cut_anew(batches, lengths, len(runs))
    return [batches[each] for each in rng.permutation(len(batches))]


def _cut_anew(batches: Sequence[np.ndarray], lengths: np.ndarray, runs: int) -> list[np.ndarray]:
    """The rows of each run in as many batches as it had: of these none is larger than its largest was."""
    within = np.array_split(np.arange(len(batches)), runs)
    joined = [(np.concatenate([batches[each] for each in run]), len(run)) for run in within]
    return [each for run, number in joined for each in alike_in_tokens(run, lengths, number)]


def _runs(rows: int, size: int) -> int:
    return max(1, batches_of(rows, size * BUCKET_BATCHES))


def training_batches(
    lengths: np.ndarray, size: int, seed: int, begin: int, odds: np.ndarray | None = None, batching: str = "rows"
) -> Iterator[np.ndarray]:
    """The batches from step `begin` on, epoch after epoch, without an end."""
    first, at = divmod(begin, batches_of(len(lengths), size))
    for epoch in count(first):
        yield from training_order(lengths, size, [seed, epoch], odds, batching)[at if epoch == first else 0 :]


def alike_in_tokens(rows: np.ndarray, lengths: np.ndarray, number: int) -> list[np.ndarray]:
    """Rows in so many batches by length, the longest first. The largest has as few tokens with padding as it can, and
    so have, one after the other, those of what is left."""
    left, batches = rows[np.argsort(-lengths[rows], kind="stable")], []
    for more in range(number, 0, -1):
        taken = _fewest_tokens(lengths[left].tolist(), more) // int(lengths[left[0]])
        batches.append(left[:taken])
        left = left[taken:]
    return batches


def _fewest_tokens(longest_first: Sequence[int], batches: int) -> int:
    """The fewest tokens with padding that a batch must have room for, where all rows are to go into so many."""
    longest, rows = longest_first[0], len(longest_first)

    def fit(tokens: int) -> bool:
        at = 0
        for _ in range(batches):
            at += tokens // longest_first[at]
            if at >= rows:
                return True
        return False

    room = range(longest, longest * -(-rows // batches) + 1)  # the last: as if all were as long as the longest
    return room[bisect_left(room, True, key=fit)]


def longest_run(lengths: np.ndarray, size: int, batching: str) -> list[np.ndarray]:
    """The largest batches that an epoch may have: those of a run that chance made of the longest rows."""
    longest_first = np.argsort(-lengths, kind="stable")
    batches = batches_of(len(lengths), size)
    size = batches_of(len(lengths), batches)  # where rows do not divide, none has as many as it might
    if batching == "rows":
        return [longest_first[:size]]
    number = batches // _runs(len(lengths), size)  # the fewer batches, the larger they are
    return alike_in_tokens(longest_first[: number * size], lengths, number)


def evaluation_order(lengths: np.ndarray, size: int, tokens: int) -> Iterator[np.ndarray]:
    """Batches of all rows by length, each of at most `size` rows and, where it has two or more, of at most `tokens`
    tokens with padding; the caller puts the outputs back in place."""
    ordered, begin = np.argsort(lengths, kind="stable"), 0
    for end in range(1, len(ordered) + 1):
        more = end + 1 - begin
        if end == len(ordered) or more > size or more * lengths[ordered[end]] > tokens:
            yield ordered[begin:end]
            begin = end
