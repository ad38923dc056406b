"""Shapes: B batch, L length."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepmine_auto import BadInput, Batch, TrainingFacts
from deepmine_auto.testing.technique import STEPS, Classifier, TechniquePromises, Trial, Words
from deepmine_plugins.techniques.token_swap import TokenSwap


class TestTokenSwap(TechniquePromises):
    technique = TokenSwap


def texts(lengths, longest):
    """Texts whose tokens are their places, counted from 1."""
    keep_BL = torch.arange(longest) < torch.tensor(lengths)[:, None]
    return Batch(torch.arange(1, longest + 1) * keep_BL, keep_BL, torch.zeros(len(lengths)))


def swapped(batch, share):
    return Trial(TokenSwap(share=share)).applied.on_batch(batch).tokens_BL


def by_hand(batch, share):
    """The same draws, worked off text by text and pair by pair."""
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(batch.tokens_BL.shape, generator=generator)
    whether = torch.rand(len(order), order.shape[1] // 2, generator=generator)
    rows = batch.tokens_BL.tolist()
    for at, row in enumerate(rows):
        places = sorted(range(int(batch.keep_BL[at].sum())), key=lambda place: order[at, place].item())
        for pair, (one, other) in enumerate(zip(places[::2], places[1::2], strict=False)):
            if whether[at, pair] < share:
                row[one], row[other] = row[other], row[one]
    return rows


ragged = st.lists(st.integers(1, 9), min_size=1, max_size=8)


@given(lengths=ragged, spare=st.integers(0, 2), share=st.floats(0.02, 1.0))
def test_it_equals_exchanges_written_as_a_loop(lengths, spare, share):
    batch = texts(lengths, max(lengths) + spare)
    assert swapped(batch, share).tolist() == by_hand(batch, share)


@given(lengths=ragged, share=st.floats(0.02, 1.0))
def test_every_text_keeps_its_tokens_and_its_padding(lengths, share):
    batch = texts(lengths, 9)
    tokens_BL = swapped(batch, share)
    assert torch.equal(tokens_BL == 0, ~batch.keep_BL)
    assert torch.equal(tokens_BL.sort(1).values, batch.tokens_BL.sort(1).values)


def test_even_where_all_would_go_one_token_of_an_odd_number_stays():
    moved_BL = swapped(texts([1, 2, 7, 8], 8), 1.0) != texts([1, 2, 7, 8], 8).tokens_BL
    assert moved_BL.sum(1).tolist() == [0, 2, 6, 8]


def test_the_share_of_tokens_that_move_is_the_one_asked_for():
    batch = texts([100] * 200, 100)
    assert abs((swapped(batch, 0.3) != batch.tokens_BL).double().mean().item() - 0.3) < 0.01


def test_tokens_go_anywhere_in_their_text():
    batch = texts([20] * 500, 20)
    reached = (swapped(batch, 1.0) - batch.tokens_BL).unique().tolist()
    assert reached == [*range(-19, 0), *range(1, 20)]


def test_tokens_with_answers_of_their_own_are_refused():
    batch = texts([3, 2], 3)._replace(targets=torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(BadInput, match=r"answers of their own cannot be exchanged\. Leave out token_swap\."):
        swapped(batch, 0.1)


def test_the_marks_of_a_pretrained_model_stay_where_they_are():
    facts = TrainingFacts(Classifier(), Words(), STEPS, torch.Generator().manual_seed(0), marks=(2, 3))
    batch = Batch(torch.tensor([[2, 7, 8, 9, 10, 3]]), torch.ones(1, 6, dtype=torch.bool), torch.zeros(1))
    (row,) = TokenSwap(share=1.0).build(facts).on_batch(batch).tokens_BL.tolist()
    assert (row[0], row[-1]) == (2, 3)
    assert sorted(row[1:-1]) == [7, 8, 9, 10] != row[1:-1]
