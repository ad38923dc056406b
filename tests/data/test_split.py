"""Splits are complete, fair and repeatable, and a fixed test stays what it is."""

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmine_auto.data.read import read_rows, source_from
from deepmine_auto.data.rows import Rows
from deepmine_auto.data.split import resplit, split, without_duplicates
from deepmine_auto.errors import BadInput

SIZES = st.lists(st.integers(3, 60), min_size=1, max_size=8)
SEEDS = st.integers(0, 2**63)


def strata_of(sizes: list[int]) -> list[int]:
    return [stratum for stratum, size in enumerate(sizes) for _ in range(size)]


def counted(rows: list[int], strata: Sequence[Any]) -> Counter[Any]:
    return Counter(strata[row] for row in rows)


# -- splits ------------------------------------------------------------------------------------------------------------


@given(SIZES, SEEDS)
def test_parts_are_disjoint_complete_and_ascending(sizes: list[int], seed: int) -> None:
    parts = split(strata_of(sizes), seed)
    assert sorted(parts.train + parts.validation + parts.test) == list(range(sum(sizes)))
    assert all(part == sorted(part) for part in parts)


@given(SIZES, SEEDS, st.sampled_from([(0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.45, 0.45)]))
def test_every_part_has_every_class(sizes: list[int], seed: int, shares: tuple[float, float, float]) -> None:
    strata = strata_of(sizes)
    for part in split(strata, seed, shares=shares):
        assert set(counted(part, strata)) == set(strata)


@given(SIZES, SEEDS)
def test_shares_hold_within_one_row_a_class(sizes: list[int], seed: int) -> None:
    strata = strata_of(sizes)
    parts = split(strata, seed)
    for stratum, size in enumerate(sizes):
        assert abs(counted(parts.validation, strata)[stratum] - 0.1 * size) < 1
        assert abs(counted(parts.test, strata)[stratum] - 0.1 * size) < 1


@given(st.lists(st.integers(10, 60), min_size=1, max_size=40), SEEDS)
def test_rounding_does_not_pile_up(sizes: list[int], seed: int) -> None:
    parts = split(strata_of(sizes), seed)
    assert abs(len(parts.validation) - 0.1 * sum(sizes)) < 1
    assert abs(len(parts.test) - 0.1 * sum(sizes)) < 1


@given(SIZES, SEEDS)
def test_a_seed_is_a_split(sizes: list[int], seed: int) -> None:
    strata = strata_of([*sizes, 50])
    assert split(strata, seed) == split(strata, seed)
    assert split(strata, seed) != split(strata, seed + 1)


def test_a_split_is_the_same_on_every_machine() -> None:
    code = "from deepmine_auto.data.split import split; print(split(['a', 'b'] * 10, 7))"
    told = [
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": each}, capture_output=True, text=True, check=True
        ).stdout
        for each in ("1", "2")
    ]
    assert told[0] == told[1] == f"{split(['a', 'b'] * 10, 7)}\n"
    assert split(["a", "b"] * 10, 7)[1:] == ([4, 15], [3, 14])


@given(SIZES, SEEDS, st.sampled_from([("test",), ("validation",), ("validation", "test")]))
def test_fixed_parts_stay(sizes: list[int], seed: int, fixed: tuple[str, ...]) -> None:
    strata = [*strata_of(sizes), 0, 0, 0, 0]
    parts = ["train"] * sum(sizes) + [*fixed, *fixed, *fixed, *fixed][:4]
    found = split(strata, seed, parts)
    for part in fixed:
        assert getattr(found, part) == [row for row, its in enumerate(parts) if its == part]
    assert sorted(found.train + found.validation + found.test) == list(range(len(strata)))


def test_what_is_missing_is_cut_at_its_share_relative_to_train() -> None:
    found = split(["x", "y"] * 100, 0, ["train"] * 180 + ["test"] * 20)
    assert (len(found.train), len(found.validation), len(found.test)) == (160, 20, 20)


@given(SIZES, SEEDS, SEEDS)
def test_resplit_deals_the_same_numbers_anew_and_never_touches_the_test(
    sizes: list[int], seed: int, other: int
) -> None:
    strata = strata_of(sizes)
    before = split(strata, seed)
    after = resplit(before, strata, other)
    assert after.test == before.test
    assert sorted(after.train + after.validation) == sorted(before.train + before.validation)
    assert counted(after.validation, strata) == counted(before.validation, strata)
    assert all(part == sorted(part) for part in after)


@given(SEEDS)
def test_resplit_depends_on_its_seed_alone(seed: int) -> None:
    strata = strata_of([60, 60])
    before = split(strata, seed)
    again = resplit(before, strata, seed)
    assert again != before
    fixed = split(strata, seed, ["train"] * 110 + ["test"] * 10)
    assert resplit(fixed, strata, seed) != fixed
    assert resplit(resplit(before, strata, seed + 1), strata, seed) == again != resplit(before, strata, seed + 1)


@pytest.mark.parametrize(
    ("strata", "parts", "told"),
    [
        (
            "aaabb",
            None,
            r"The class 'b' has 2 rows, and each of train, validation, test needs one. Give it 3 different",
        ),
        ("aaab", ["train"] * 3 + ["test"], r"The label 'b' of test is in no row of train. Add rows of it to train"),
        (
            "aba",
            ["train", "train", "test"],
            r"The class 'a' has 1 row \(one of 2 such classes\), and each of train, validation",
        ),
        ("aab", ["validation", "test", "test"], r"The label 'a' of validation is in no row of train"),
    ],
)
def test_a_class_that_cannot_be_split_is_told(strata: str, parts: list[str] | None, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        split(strata, 0, parts)


# -- duplicates --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [("Hello  you", "hello you"), ("a\tb\n", "a b"), ("stra\u00dfe", "STRASSE"), ("cafe\u0301", "caf\u00e9")],
)
def test_case_blanks_and_composition_make_no_difference(one: str, other: str) -> None:
    rows = without_duplicates(Rows([one, other, "c"], ["x", "x", "y"]))
    assert (rows.inputs, rows.labels, rows.parts) == ([one, "c"], ["x", "y"], None)
    assert rows.notes == ("Duplicate texts removed: 1.",)


def test_contradictions_are_counted_and_the_first_stays() -> None:
    rows = without_duplicates(Rows(["a", "A", "a ", "b"], ["x", "y", "x", "y"], notes=("before",)))
    assert (rows.inputs, rows.labels) == (["a", "b"], ["x", "y"])
    told = "Duplicate texts removed: 2; labelled otherwise than the one that stayed: 1."
    assert rows.notes == ("before", told)


def test_the_test_stays_what_the_user_gave() -> None:
    inputs = ["t", "v", "w", "train", "v", "w", "w", "t", "T", "other"]
    parts = ["train"] * 4 + ["validation"] * 3 + ["test"] * 3
    rows = without_duplicates(Rows(inputs, ["x"] * 10, parts))
    kept = list(zip(rows.inputs, rows.parts or (), strict=True))
    assert kept == [
        ("train", "train"),
        ("v", "validation"),
        ("w", "validation"),
        ("t", "test"),
        ("T", "test"),
        ("other", "test"),
    ]
    assert rows.notes == ("Duplicate texts removed: 4; also in a later part: 3.",)


def test_rows_without_duplicates_are_returned_as_they_are() -> None:
    rows = Rows(["a", "b"], ["x", "y"])
    assert without_duplicates(rows) is rows


def test_a_train_part_that_is_all_in_the_test_is_refused() -> None:
    with pytest.raises(BadInput, match=r"Every text of train is also in validation or test. Give other rows"):
        without_duplicates(Rows(["a", "A"], ["x", "x"], ["train", "test"]))


@given(st.lists(st.text("aAb \t", min_size=1), max_size=20))
def test_no_duplicate_is_left_and_no_text_is_lost(texts: list[str]) -> None:
    rows = without_duplicates(Rows(texts, ["x"] * len(texts)))
    plain = [" ".join(each.lower().split()) for each in rows.inputs]
    assert len(plain) == len(set(plain))
    assert set(plain) == {" ".join(each.lower().split()) for each in texts}


# -- real data ---------------------------------------------------------------------------------------------------------


def test_trec_keeps_its_test_and_gets_a_validation(test_data: Path) -> None:
    paths = [str(test_data / "trec" / name) for name in ("train.tsv", "test.tsv")]
    rows = without_duplicates(read_rows(source_from(paths, label_column="fine")))
    found = split(rows.labels, 0, rows.parts)
    assert len(found.test) == 500
    assert set(counted(found.validation, rows.labels)) == set(counted(found.train, rows.labels))
