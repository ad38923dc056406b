"""Shapes: B batch, L length, N rows."""

import math
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepmine_auto.messages import WHOLE
from deepmine_auto.training.batching import (
    BUCKET_BATCHES,
    Columns,
    evaluation_order,
    longest_run,
    training_batches,
    training_order,
)
from deepmine_auto.training.recipe import MOST_REPORTS, Recipe
from deepmine_plugins.pruners.asha import Asha

lengths = st.lists(st.integers(1, 60), min_size=1, max_size=300).map(np.array)
sizes = st.sampled_from([1, 2, 8, 16, 64])


@given(lengths, sizes, st.integers(0, 2**31), st.integers(0, 200))
def test_an_epoch_has_every_row_once_in_batches_that_differ_by_a_row_at_most(lengths_N, size, seed, epoch):
    batches = training_order(lengths_N, size, [seed, epoch])
    assert sorted(np.concatenate(batches)) == list(range(len(lengths_N)))
    assert len(batches) == -(-len(lengths_N) // size)
    assert max(map(len, batches)) <= size
    assert max(map(len, batches)) - min(map(len, batches)) <= 1, "no few long rows have a step for themselves"


def test_where_rows_do_not_divide_no_batch_has_as_many_as_it_might():
    """What a step needs is measured by the largest batch that an epoch may have."""
    (largest,) = longest_run(np.arange(1, 261), 256, "rows")
    assert len(largest) == 130
    assert max(map(len, training_order(np.arange(1, 261), 256, [0, 0]))) == 130


@given(lengths, sizes, st.integers(0, 2**31), st.integers(0, 200))
def test_the_order_is_a_function_of_seed_and_epoch(lengths_N, size, seed, epoch):
    first, again = (training_order(lengths_N, size, [seed, epoch]) for _ in range(2))
    assert all(np.array_equal(*each) for each in zip(first, again, strict=True))


def test_another_epoch_or_seed_has_another_order():
    orders = [np.concatenate(training_order(np.arange(1, 200), 16, each)).tolist() for each in ([0, 0], [0, 1], [1, 0])]
    assert len(set(map(tuple, orders))) == 3


@given(st.integers(0, 2**31))
def test_little_is_padded(seed):
    """Rows of one batch are neighbours in length, within runs of some batches."""
    lengths_N = np.random.default_rng(seed).integers(1, 100, size=16 * BUCKET_BATCHES * 2)
    padded = sum(len(each) * lengths_N[each].max() for each in training_order(lengths_N, 16, [seed, 0]))
    assert padded <= 1.15 * lengths_N.sum()


@given(lengths, sizes, st.integers(1, 500))
def test_evaluation_sees_every_row_once_and_shortest_first(lengths_N, size, tokens):
    batches = list(evaluation_order(lengths_N, size, tokens))
    ordered = np.concatenate(batches)
    assert all(len(each) == 1 or len(each) * lengths_N[each].max() <= tokens for each in batches)
    assert max(map(len, batches)) <= size
    for one, other in pairwise(batches):
        rows = len(one) + 1
        assert rows > size or rows * lengths_N[other[0]] > tokens, "a batch takes what it can"
    assert sorted(ordered) == list(range(len(lengths_N)))
    assert (np.diff(lengths_N[ordered]) >= 0).all()


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), min_size=1, max_size=20), st.data())
def test_a_batch_holds_its_rows_padded_to_the_longest(rows, data):
    columns = Columns.of(rows, np.arange(len(rows)))
    indices = np.array(data.draw(st.lists(st.sampled_from(range(len(rows))), min_size=1)))
    batch = columns.batch(indices)
    assert batch.tokens_BL.shape[1] == max(len(rows[each]) for each in indices)
    assert [row[keep].tolist() for row, keep in zip(batch.tokens_BL, batch.keep_BL, strict=True)] == [
        rows[each] for each in indices
    ]
    assert not batch.tokens_BL[~batch.keep_BL].any()
    assert batch.targets.tolist() == indices.tolist()


def test_columns_are_read_back_from_their_file(tmp_path):
    columns = Columns.of([[1, 2], [3]], np.array([0, 1]))
    columns.save(tmp_path / "columns.safetensors")
    again = Columns.load(tmp_path / "columns.safetensors")
    assert len(again) == 2
    assert torch.equal(again.batch(np.array([1, 0])).tokens_BL, torch.tensor([[3, 0], [1, 2]]))
    assert again.lengths.tolist() == [2, 1]


# -- recipe ------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 100_000), st.integers(1, 1000))
def test_evaluations_are_at_most_200_and_the_last_is_at_the_end(steps, epochs):
    found = Recipe(epochs=epochs).evaluations(steps)
    assert found[-1] == steps
    assert found == sorted(set(found))
    assert found[0] >= 1
    assert min(steps, 9) <= len(found) <= MOST_REPORTS
    shares = [round(1000 * each / steps) for each in found]
    assert len(set(shares)) == len(shares), "no two reports of a trial stand at one share"


@given(st.integers(9, 100_000), st.sampled_from([8, 32, 256]), st.integers(1, 1_000_000))
def test_where_evaluations_are_dear_there_are_fewer_and_both_rungs_are_among_them(steps, batch, judged):
    found = Recipe(epochs=1, batch=batch).evaluations(steps, judged)
    assert {math.ceil(steps / 9), math.ceil(steps / 3), steps} <= set(found)
    assert found == sorted(set(found))
    assert len(found) == 3 or len(found) * judged <= 0.25 * 3 * batch * steps
    assert len(found) == 9 or 9 * judged > 0.25 * 3 * batch * steps


@pytest.mark.parametrize(("judged", "places"), [(0, (0, 2)), (10**9, (0, 1))])
def test_a_trial_of_any_length_is_evaluated_at_both_rungs_and_not_just_before_them(judged, places):
    for steps in range(9, 3001):
        shares = [round(WHOLE * each / steps) for each in Recipe(epochs=1).evaluations(steps, judged)]
        assert all(shares[at] >= rung for at, rung in zip(places, Asha().rungs(), strict=True)), steps


def test_a_trial_is_evaluated_each_ninth_or_each_second_or_at_its_rungs_alone():
    assert Recipe(epochs=1, batch=32).evaluations(90, 10) == [10, 20, 30, 40, 50, 60, 70, 80, 90]
    assert Recipe(epochs=1, batch=32).evaluations(90, 300) == [10, 30, 50, 70, 90]
    assert Recipe(epochs=30, batch=32).evaluations(90, 3000) == [10, 30, 90]


# -- rows drawn by odds ------------------------------------------------------------------------------------------------

odds_of = st.integers(0, 99).map(np.random.default_rng)


def rows_of(batches):
    return np.concatenate(batches).tolist()


@given(lengths, sizes, st.integers(0, 2**31), st.integers(0, 200), odds_of)
def test_an_epoch_drawn_by_odds_is_as_long_and_a_function_of_seed_and_epoch(lengths_N, size, seed, epoch, rng):
    odds_N = rng.uniform(0.1, 5.0, len(lengths_N))
    plain = training_order(lengths_N, size, [seed, epoch])
    first, again = (training_order(lengths_N, size, [seed, epoch], odds_N) for _ in range(2))
    assert rows_of(first) == rows_of(again)
    assert sorted(map(len, first)) == sorted(map(len, plain))
    assert set(rows_of(first)) <= set(range(len(lengths_N)))


def test_another_epoch_or_seed_draws_other_rows():
    odds_N = np.linspace(1.0, 2.0, 200)
    epochs = [training_order(np.arange(1, 201), 16, each, odds_N) for each in ([0, 0], [0, 1], [1, 0])]
    assert len({tuple(sorted(rows_of(each))) for each in epochs}) == 3


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_over_many_epochs_rows_are_drawn_as_often_as_their_odds_say(scale):
    odds_N = np.repeat([0.0, 1.0, 4.0], [10, 40, 50])
    drawn = [training_order(np.ones(100), 8, [3, epoch], scale * odds_N) for epoch in range(400)]
    shares_N = np.bincount(rows_of([row for epoch in drawn for row in epoch]), minlength=100) / 40_000
    assert not shares_N[:10].any()
    np.testing.assert_allclose(shares_N[10:], odds_N[10:] / odds_N.sum(), rtol=0.35)
    np.testing.assert_allclose(shares_N[50:].sum(), 200 / 240, atol=0.01)


def test_rows_drawn_by_odds_stand_with_others_of_like_length():
    lengths_N = np.random.default_rng(0).integers(1, 100, size=16 * BUCKET_BATCHES * 2)
    batches = training_order(lengths_N, 16, [0, 0], np.linspace(1.0, 3.0, len(lengths_N)))
    assert sum(len(each) * lengths_N[each].max() for each in batches) <= 1.15 * lengths_N[rows_of(batches)].sum()


@given(lengths, sizes, st.integers(0, 40), odds_of)
def test_from_any_step_on_the_batches_are_those_of_a_training_that_never_stopped(lengths_N, size, begin, rng):
    odds_N = rng.uniform(0.1, 5.0, len(lengths_N))
    whole = list(islice(training_batches(lengths_N, size, 7, 0, odds_N), begin + 5))
    assert rows_of(whole[:1]) == training_order(lengths_N, size, [7, 0], odds_N)[0].tolist()
    later = islice(training_batches(lengths_N, size, 7, begin, odds_N), 5)
    assert all(np.array_equal(*each) for each in zip(whole[begin:], later, strict=True))


def test_without_odds_the_order_is_what_it_always_was():
    batches = training_order(np.array([5, 2, 9, 4, 7, 1, 3, 8, 6, 2]), 4, [3, 1])
    assert [each.tolist() for each in batches] == [[5, 1, 9, 6], [3, 0, 8], [4, 7, 2]]
