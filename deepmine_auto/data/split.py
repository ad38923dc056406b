"""Duplicates removed, then train, validation and test: stratified, seeded, the same on every machine.

Splits are drawn with `random.Random(...).random()` alone, the one stream that Python promises not to change.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import ceil, floor
from random import Random
from typing import NamedTuple

from deepmine_auto.data.rows import PARTS, Rows
from deepmine_auto.errors import BadInput


class Split(NamedTuple):
    """The indices of each part's rows, ascending."""

    train: list[int]
    validation: list[int]
    test: list[int]


# -- duplicates ------------------------------------------------------------------------------------------------------


def without_duplicates(rows: Rows) -> Rows:
    """Keep the first of texts that differ at most in case, blanks or Unicode composition; a note counts the rest.

    A test part that the user fixed stays as it is; what is also in test goes from validation, and what is in either
    goes from train. Raises BadInput if nothing of train is left.
    """
    parts = rows.parts or ["train"] * len(rows)
    keep: list[int] = []
    gone: list[tuple[int, int]] = []
    first: dict[str, int] = {}
    for row in sorted(range(len(rows)), key=lambda row: -PARTS.index(parts[row])):
        kept = first.setdefault(essence(rows.inputs[row]), row)
        if kept == row or parts[row] == "test":
            keep.append(row)
        else:
            gone.append((row, kept))
    if not gone:
        return rows
    if all(parts[row] != "train" for row in keep):
        raise BadInput("Every text of train is also in validation or test.", "Give other rows to train on.")
    return replace(rows.take(sorted(keep)), notes=(*rows.notes, _told(gone, rows.labels, parts)))


def essence(text: str) -> str:
    """Return what texts share that differ at most in case, blanks or Unicode composition."""
    composed = unicodedata.normalize("NFC", text).casefold()
    return " ".join(unicodedata.normalize("NFC", composed).split())


def _told(gone: Sequence[tuple[int, int]], labels: Sequence[object], parts: Sequence[str]) -> str:
    other = sum(labels[row] != labels[kept] for row, kept in gone)
    across = sum(parts[row] != parts[kept] for row, kept in gone)
    note = f"Duplicate texts removed: {len(gone):,}"
    note += f"; labelled otherwise than the one that stayed: {other:,}" if other else ""
    note += f"; also in a later part: {across:,}" if across else ""
    return f"{note}."


# -- splits ----------------------------------------------------------------------------------------------------------


def split(
    strata: Sequence[Hashable],
    seed: int,
    parts: Sequence[str] | None = None,
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
    most: int | None = None,
) -> Split:
    """Cut the rows into parts that each have every stratum, at its share to within one row of validation and test.

    Parts that the user fixed stay; what is missing is cut from train, at its share relative to train's, and has no more
    than `most` rows, or one of each stratum.
    Raises BadInput if a stratum has too few rows for that.
    """
    refuse_too_few(strata, parts)
    given = parts or ["train"] * len(strata)
    rows = {part: [row for row, its in enumerate(given) if its == part] for part in PARTS}
    asked = {part: s for part, s in zip(PARTS, shares, strict=True) if part in _drawn(parts)}
    share = _limited(asked, (most or len(strata)) / max(1, len(rows["train"])))
    train, owed = [], dict.fromkeys(share, 0.0)
    for members in _shuffled(strata, rows["train"], Random(f"split {seed}")):
        size, needed = len(members), len(share)
        for part in list(share)[1:]:
            needed -= 1
            due = size * share[part] / sum(share.values())
            count = min(max(round(owed[part] + due), floor(due), 1), ceil(due), len(members) - needed)
            owed[part] += due - count  # so that rounding evens out over the strata
            rows[part] += members[:count]
            members = members[count:]
        train += members
    return Split(sorted(train), sorted(rows["validation"]), sorted(rows["test"]))


def _limited(share: Mapping[str, float], most: float) -> Mapping[str, float]:
    """Shares of which none but the first, which is that of train, is more than `most` of all."""
    if all(each <= most * sum(share.values()) for each in list(share.values())[1:]):
        return share
    return {part: most if at else 1 - most * (len(share) - 1) for at, part in enumerate(share)}


def resplit(split: Split, strata: Sequence[Hashable], seed: int) -> Split:
    """Deal the rows of train and validation anew, as many of each stratum to each; the test stays."""
    held = Counter(strata[row] for row in split.validation)
    train, validation = [], []
    for members in _shuffled(strata, sorted(split.train + split.validation), Random(f"resplit {seed}")):
        count = held[strata[members[0]]]
        validation += members[:count]
        train += members[count:]
    return Split(sorted(train), sorted(validation), list(split.test))


def fewer_judged(split: Split, strata: Sequence[Hashable], most: int, seed: int) -> Split:
    """The split with so many validation rows at most, and one of each stratum; what they leave is trained on."""
    validation, left = _some(split.validation, strata, most, Random(f"judged {seed}"))
    return Split(sorted(split.train + left), sorted(validation), list(split.test))


def fewer_tested(split: Split, strata: Sequence[Hashable], most: int, seed: int) -> Split:
    """The split with so many test rows at most, and one of each stratum; what they leave is in no part: a study with
    more time may be tested on it, and what was found here helps it only if it has not learned from that."""
    test, _ = _some(split.test, strata, most, Random(f"tested {seed}"))
    return Split(list(split.train), list(split.validation), sorted(test))


def _some(rows: Sequence[int], strata: Sequence[Hashable], most: int, rng: Random) -> tuple[list[int], list[int]]:
    """So many of the rows at most, and one of each stratum; and the others."""
    share, some, left = most / max(1, len(rows)), list[int](), list[int]()
    for members in _shuffled(strata, rows, rng):
        count = max(1, floor(len(members) * share))
        some += members[:count]
        left += members[count:]
    return some, left


def refuse_too_few(strata: Sequence[Hashable], parts: Sequence[str] | None = None) -> None:
    """Raise BadInput if a class has fewer rows in train than parts are drawn from train, or none at all there."""
    given = parts or ["train"] * len(strata)
    counts = Counter(its for its, part in zip(strata, given, strict=True) if part == "train")
    for its, part in zip(strata, given, strict=True):
        if its not in counts:
            what = f"The label '{its}' of {part} is in no row of train."
            raise BadInput(what, f"Add rows of it to train, or drop it from {part}.")
    drawn = _drawn(parts)
    rare = {its: count for its, count in counts.items() if count < len(drawn)}
    for its, count in rare.items():
        has = "1 row" if count == 1 else f"{count} rows"
        has += f" (one of {len(rare):,} such classes)" if len(rare) > 1 else ""
        what = f"The class '{its}' has {has}, and each of {', '.join(drawn)} needs one."
        raise BadInput(what, f"Give it {len(drawn)} different texts, merge it with another class, or drop it.")


def _drawn(parts: Sequence[str] | None) -> list[str]:
    """Train, and the parts that are to be cut from it."""
    fixed = set(parts or ()) - {"train"}
    return [part for part in PARTS if part not in fixed]


def _shuffled(strata: Sequence[Hashable], rows: Iterable[int], rng: Random) -> list[list[int]]:
    drawn = {row: rng.random() for row in rows}
    members = defaultdict(list)
    for row in sorted(drawn, key=drawn.__getitem__):
        members[strata[row]].append(row)
    return list(members.values())
