"""Batches that hold about as many tokens: a cut of the rows of a training, and what trains on them.

Shapes: B batch, L length, N rows.
"""

from itertools import combinations, islice

import numpy as np
import pytest
import torch
from alike import CERTAIN, SGD, assert_goes_on, assert_learns_the_same
from hypothesis import given
from hypothesis import strategies as st
from tiny_texts import TECHNIQUES, assignment, kept, rows

from deepmine_auto.host import the_host
from deepmine_auto.training import measure
from deepmine_auto.training.batching import (
    BUCKET_BATCHES,
    alike_in_tokens,
    longest_run,
    training_batches,
    training_order,
)
from deepmine_auto.training.loop import Training
from deepmine_auto.training.step import take_step

lengths = st.lists(st.integers(1, 60), min_size=1, max_size=300).map(np.array)
skewed = st.lists(st.sampled_from([1, 2, 3, 50, 512]), min_size=1, max_size=300).map(np.array)
sizes = st.sampled_from([1, 2, 3, 8, 64])
seeds = st.integers(0, 2**31)
odds_of = st.none() | st.integers(0, 99).map(np.random.default_rng)


def padded(batches, lengths_N):
    """The tokens of each batch, padding included."""
    return [len(each) * int(lengths_N[each].max()) for each in batches]


def both(lengths_N, size, seed, rng=None):
    """An epoch cut by rows, and the same cut by tokens."""
    odds_N = None if rng is None else rng.uniform(0.1, 5.0, len(lengths_N))
    return [training_order(lengths_N, size, [seed, 3], odds_N, each) for each in ("rows", "tokens")]


# -- the cut -----------------------------------------------------------------------------------------------------------


@given(lengths | skewed, sizes, seeds, odds_of)
def test_an_epoch_has_the_rows_and_the_steps_that_it_has_with_rows_and_no_empty_batch(lengths_N, size, seed, rng):
    by_rows, by_tokens = both(lengths_N, size, seed, rng)
    assert sorted(np.concatenate(by_tokens)) == sorted(np.concatenate(by_rows))
    assert len(by_tokens) == len(by_rows) == -(-len(lengths_N) // size)
    assert all(map(len, by_tokens))


@given(lengths | skewed, sizes, seeds, odds_of)
def test_no_batch_is_larger_than_the_largest_with_rows(lengths_N, size, seed, rng):
    by_rows, by_tokens = both(lengths_N, size, seed, rng)
    assert max(padded(by_tokens, lengths_N)) <= max(padded(by_rows, lengths_N))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.data())
def test_the_largest_batch_of_a_run_is_as_small_as_any_cut_by_length_can_make_it(texts, data):
    lengths_N, number = np.array(texts), data.draw(st.integers(1, len(texts)))
    ordered = np.argsort(lengths_N)
    cuts = combinations(range(1, len(texts)), number - 1)
    fewest = min(max(padded(np.split(ordered, cut), lengths_N)) for cut in cuts)
    found = alike_in_tokens(np.arange(len(texts)), lengths_N, number)
    assert max(padded(found, lengths_N)) == fewest
    assert [len(found), sorted(np.concatenate(found))] == [number, [*range(len(texts))]]


@given(st.integers(0, 999))
def test_batches_of_a_run_hold_about_as_many_tokens_and_short_texts_stand_in_larger_ones(seed):
    lengths_N = np.random.default_rng(seed).integers(8, 100, size=16 * BUCKET_BATCHES)
    batches = sorted(both(lengths_N, 16, seed)[1], key=lambda each: lengths_N[each].max())
    tokens = padded(batches, lengths_N)
    assert min(tokens) > 0.85 * max(tokens)
    assert len(batches[0]) > 2 * 16 > 16 > 1.2 * len(batches[-1])


def test_a_single_long_text_leaves_the_others_in_batches_of_one_size():
    lengths_N = np.array([100, *[1] * 32])
    assert [len(each) for each in alike_in_tokens(np.arange(33), lengths_N, 5)] == [1, 8, 8, 8, 8]


@given(lengths | skewed, sizes, seeds)
def test_the_order_is_a_function_of_seed_and_epoch(lengths_N, size, seed):
    first, again = (both(lengths_N, size, seed)[1] for _ in range(2))
    assert all(np.array_equal(*each) for each in zip(first, again, strict=True))


def test_another_epoch_or_seed_has_another_order():
    asked = [[0, 0], [0, 1], [1, 0]]
    orders = [training_order(np.arange(1, 200), 16, each, None, "tokens") for each in asked]
    assert len({tuple(np.concatenate(each).tolist()) for each in orders}) == 3


@given(lengths, sizes, st.integers(0, 40))
def test_from_any_step_on_the_batches_are_those_of_a_training_that_never_stopped(lengths_N, size, begin):
    whole = list(islice(training_batches(lengths_N, size, 7, 0, None, "tokens"), begin + 5))
    later = islice(training_batches(lengths_N, size, 7, begin, None, "tokens"), 5)
    assert all(np.array_equal(*each) for each in zip(whole[begin:], later, strict=True))
    assert np.array_equal(whole[0], training_order(lengths_N, size, [7, 0], None, "tokens")[0])


@pytest.mark.parametrize("batching", ["rows", "tokens"])
@given(lengths_N=lengths | skewed, size=sizes, seed=seeds)
def test_no_epoch_has_a_larger_batch_than_the_run_of_the_longest_rows(batching, lengths_N, size, seed):
    most = max(padded(longest_run(lengths_N, size, batching), lengths_N))
    assert max(padded(training_order(lengths_N, size, [seed, 0], None, batching), lengths_N)) <= most


def test_rows_of_several_runs_meet_others_in_each_epoch():
    lengths_N = np.arange(1, 1 + 2 * 16 * BUCKET_BATCHES)
    epochs = [training_order(lengths_N, 16, [0, each], None, "tokens") for each in (0, 1)]
    first, second = ({frozenset(each.tolist()) for each in epoch} for epoch in epochs)
    assert not first & second


def test_the_run_of_the_longest_rows_has_as_few_batches_as_the_shortest_run():
    """Of 17 batches one run has nine, and the other eight: of 16 long rows, each then holds two."""
    lengths_N = np.array([10] * 16 + [1] * 18)
    assert padded(longest_run(lengths_N, 2, "tokens"), lengths_N) == [20] * 8


# -- a training on them ------------------------------------------------------------------------------------------------

TOKENS = {"training/batching": "tokens", "training/batch": 8}
LOOSE = [each.rsplit(" ", 1)[0] for each in rows(140).inputs[80:]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return kept(tmp_path_factory.mktemp("study") / "study", LOOSE)


def training_of(folder, number, **params):
    return Training(assignment(folder, number=number, params={**TOKENS, **params}), the_host())


def test_a_training_has_as_many_steps_and_batches_of_other_sizes_with_labels_and_without(folder):
    training = training_of(folder, 0, **{"technique/pseudo_labels/use": True})
    assert training.steps == 8 * 4
    drawn = [training.draw() for _ in range(8)]
    assert sum(len(batch.tokens_BL) for batch, _ in drawn) == 64
    assert any(len(batch.tokens_BL) != len(loose.tokens_BL) for batch, loose in drawn)
    sizes = [batch.tokens_BL.numel() for batch, _ in drawn]
    assert min(sizes) > 0.75 * max(sizes)


def test_interrupted_it_goes_on_bit_for_bit(folder, monkeypatch):
    more = {**TECHNIQUES, "technique/pseudo_labels/use": True, "technique/balanced_sampling/use": True}
    assert_goes_on(assignment(folder, number=1, params={**TOKENS, **more}), monkeypatch)


SMALL = {
    **CERTAIN, **SGD, **TOKENS, "training/batch": 2, "training/epochs": 1, "optimizer/sgd/lr": 0.01,
    "technique/pseudo_labels/use": True, "technique/pseudo_labels/sure": 0.5,
}  # fmt: skip
"""Batches of one to five rows: most have fewer than there are parts or processes. Steps are small, because where rows
are added up in another order, noise grows with each."""


def test_the_batches_are_as_small_as_these_tests_say(folder):
    training = training_of(folder, 2, **SMALL)
    drawn = [each for _ in range(30) for each in training.draw()]
    assert {1, 2} < {len(each.tokens_BL) for each in drawn}


def test_in_parts_it_learns_the_same(folder, monkeypatch):
    monkeypatch.setattr(Training, "_due", lambda _: True)
    assert_learns_the_same(assignment(folder, number=3, params=SMALL), halvings=3)


@pytest.mark.slow
def test_several_processes_learn_the_same(folder):
    assert_learns_the_same(assignment(folder, number=5, params=SMALL), processes=3)


ALL = [
    "awp", "balanced_sampling", "checkpoint_soup", "denoising", "ema", "fgm", "focal_loss", "gradient_accumulation",
    "label_smoothing", "layer_decay", "mixup", "pseudo_labels", "r_drop", "token_swap", "vat", "word_dropout",
]  # fmt: skip


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("labelled", "without"), [(1, 7), (7, 1)])
def test_a_step_on_a_single_row_is_a_step_with_every_technique(folder, name, labelled, without):
    """A text that is much longer than all others may be a batch of its own."""
    training = training_of(folder, 7, **{f"technique/{name}/use": True})
    training.model.train()
    before = [each.clone() for each in training.model.parameters()]
    for _ in range(2):
        loose = training.unlabelled.batch(range(without))
        assert torch.isfinite(take_step(training, training.train.batch(range(labelled)), loose))
    after = [*training.model.parameters()]
    assert all(each.isfinite().all() for each in after)
    assert any(not torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_the_memory_is_that_of_the_largest_batch(folder):
    """All rows are one run here, so that each epoch has the same batches."""
    by_tokens, by_rows = training_of(folder, 8), training_of(folder, 9, **{"training/batching": "rows"})
    measured = {training: measure._longest(training).tokens_BL for training in (by_tokens, by_rows)}
    for training, tokens_BL in measured.items():
        assert tokens_BL.numel() == max(training.draw()[0].tokens_BL.numel() for _ in range(8))
    assert measured[by_tokens].numel() < measured[by_rows].numel()


def test_of_batches_in_parts_the_largest_part_is_measured(folder):
    """Where batches have few rows, the parts of another one may be larger than those of the largest."""
    training = training_of(folder, 10, **{"technique/gradient_accumulation/use": True})
    lengths_N, parts = training.train.lengths, training.parts
    batches = longest_run(lengths_N, 8, "tokens")
    assert parts == 4
    assert measure._longest(training).tokens_BL.numel() == max(
        -(-len(each) // parts) * int(lengths_N[each].max()) for each in batches
    )
