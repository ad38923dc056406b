"""A fingerprint is equal where the rows are, and nowhere else."""

from dataclasses import replace
from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deepmine_auto.data.fingerprint import content, fingerprint
from deepmine_auto.data.rows import Rows

CELLS = st.text(st.sampled_from('a1",\n\\[]\ud83d é'), max_size=3)
TABLES = st.lists(st.tuples(CELLS, CELLS, st.sampled_from(["train", "validation", "test"])), min_size=1, max_size=4)


def rows_of(table: list[tuple[str, str, str]]) -> Rows:
    inputs, labels, parts = (list(column) for column in zip(*table, strict=True))
    return Rows(inputs, labels, parts)


@given(TABLES, TABLES)
def test_fingerprints_are_equal_exactly_where_rows_are(
    one: list[tuple[str, str, str]], other: list[tuple[str, str, str]]
) -> None:
    assert (fingerprint(rows_of(one)) == fingerprint(rows_of(other))) == (one == other)


@given(TABLES)
def test_any_change_changes_the_fingerprint(table: list[tuple[str, str, str]]) -> None:
    rows = rows_of(table)
    changed = [
        replace(rows, inputs=[f"{rows.inputs[0]}x", *rows.inputs[1:]]),
        replace(rows, labels=[*rows.labels[:-1], f"{rows.labels[-1]}x"]),
        replace(rows, parts=None),
        rows.take(range(len(rows) - 1)),
        rows.take([0, *range(len(rows))]),
    ]
    assert fingerprint(rows) not in map(fingerprint, changed)


def test_order_counts_and_notes_do_not() -> None:
    rows = Rows(["a", "b"], ["x", "y"])
    assert fingerprint(rows) != fingerprint(rows.take([1, 0]))
    assert fingerprint(rows) == fingerprint(replace(rows, notes=("said",)))


@given(TABLES, st.randoms())
def test_contents_are_equal_exactly_where_rows_are_in_whatever_order_and_parts(
    table: list[tuple[str, str, str]], random: Random
) -> None:
    rows, order = rows_of(table), list(range(len(table)))
    random.shuffle(order)
    assert content(rows) == content(replace(rows.take(order), parts=None))
    assert content(rows) != content(rows.take(order[1:]))
    assert content(rows) != content(replace(rows, labels=[*rows.labels[:-1], f"{rows.labels[-1]}x"]))


def test_a_cell_is_not_its_neighbour_and_a_number_is_not_its_text() -> None:
    prints = [Rows(["ab"], ["c"]), Rows(["a"], ["bc"]), Rows(["a"], ["1"]), Rows(["a"], [1])]
    assert len(set(map(fingerprint, prints))) == 4


def test_arrays_count_by_their_values() -> None:
    def printed(*values: int) -> str:
        return fingerprint(Rows([np.array(values)], [np.int64(1)]))

    assert printed(1, 2) == printed(1, 2) != printed(2, 1)
    assert printed(1, 2) == fingerprint(Rows([[1, 2]], [1]))


def test_a_fingerprint_stays_the_same_over_versions() -> None:
    assert fingerprint(Rows(["a"], ["x"])) == "cc946d296c1dddf7aee26062795c11eb1f10a32345e84b0c65f714c9903c042c"
