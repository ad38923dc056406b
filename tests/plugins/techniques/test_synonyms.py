"""Shapes: B batch, L length, V vocabulary, E dim of a vector."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepmine_auto import BadInput, Batch, TrainingFacts
from deepmine_auto.testing.technique import STEPS, Classifier, TechniquePromises, Words
from deepmine_plugins.techniques import synonyms
from deepmine_plugins.techniques.synonyms import Synonyms


def in_a_plane(degrees):
    """Vectors of random length in these directions; None is a word without one."""
    lengths = np.random.default_rng(0).uniform(0.5, 2.0, len(degrees))
    angles = np.deg2rad([each or 0.0 for each in degrees])
    known = np.array([each is not None for each in degrees])
    return (known * lengths * np.stack((np.cos(angles), np.sin(angles)))).T.astype(np.float32)


PAIRS = in_a_plane([None, None, 10, 15, 100, 108, 190, 192, 280, 299, 50, 55])


class TestSynonyms(TechniquePromises):
    technique = Synonyms


def applied(vectors_VE, **fields):
    prepared = Words(vocabulary=len(vectors_VE), vectors_VE=vectors_VE)
    return Synonyms(**fields).build(TrainingFacts(Classifier(), prepared, STEPS, torch.Generator().manual_seed(0)))


def replaced(tokens, work):
    tokens_BL = torch.tensor(tokens)
    return work.on_batch(Batch(tokens_BL, tokens_BL > 0, torch.zeros(len(tokens)))).tokens_BL


def near_by_hand(vectors_VE, nearest, floor):
    """The near words of each word, by loops over pairs."""
    found = []
    for one, vector_E in enumerate(vectors_VE):
        cosines = {
            other: float(vector_E @ each_E) / (np.linalg.norm(vector_E) * np.linalg.norm(each_E))
            for other, each_E in enumerate(vectors_VE)
            if 0 not in (one, other) and one != other and vector_E.any() and each_E.any()
        }
        near = sorted((each for each in cosines if cosines[each] > floor), key=lambda each: -cosines[each])
        found.append(near[:nearest])
    return found


@pytest.mark.parametrize("chunk", [1, 3, 64])
@given(seed=st.integers(0, 99), nearest=st.integers(1, 10), floor=st.floats(0.01, 0.9), words=st.integers(5, 20))
def test_near_words_are_those_found_by_loops_over_pairs(chunk, seed, nearest, floor, words):
    vectors_VE = np.random.default_rng(seed).normal(size=(words, 3))
    vectors_VE[[1, 3]] = 0.0
    near = applied(vectors_VE, nearest=nearest, floor=floor).near
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synonyms, "CHUNK", chunk)
        near.look_up(torch.arange(words))
    counted = zip(near.word_VK.tolist(), near.count_V.tolist(), strict=True)
    assert [row[:count] for row, count in counted] == near_by_hand(vectors_VE, nearest, floor)


@given(order=st.permutations(range(300)))
def test_in_whatever_order_words_come_their_near_words_are_the_same_bits(order):
    vectors_VE = np.random.default_rng(0).normal(size=(300, 50))
    whole, later = (applied(vectors_VE, floor=0.1).near for _ in range(2))
    whole.look_up(torch.arange(300))
    for each in torch.tensor(order).split(7):
        later.look_up(each)
    assert torch.equal(whole.word_VK, later.word_VK)
    assert torch.equal(whole.count_V, later.count_V)


def test_words_become_their_near_words_and_nothing_else():
    work = applied(PAIRS, share=1.0, nearest=1, floor=0.9)
    assert replaced([[2, 3, 4, 5, 6, 7], [8, 9, 10, 11, 0, 0]], work).tolist() == [
        [3, 2, 5, 4, 7, 6],
        [9, 8, 11, 10, 0, 0],
    ]


def test_every_near_word_is_drawn_as_often_as_the_others():
    work = applied(in_a_plane([None, 0, 5, 355, 10, 180]), share=1.0, nearest=3, floor=0.9)
    tokens_BL = replaced([[1] * 100] * 300, work)
    shares = torch.bincount(tokens_BL.flatten(), minlength=6) / tokens_BL.numel()
    torch.testing.assert_close(shares, torch.tensor([0, 0, 1 / 3, 1 / 3, 1 / 3, 0]), atol=0.01, rtol=0)


def test_the_share_of_words_replaced_is_the_one_asked_for():
    tokens_BL = replaced([[2] * 100] * 200, applied(PAIRS, share=0.3))
    assert abs((tokens_BL != 2).double().mean().item() - 0.3) < 0.01


def test_words_without_a_vector_or_a_near_word_stay():
    work = applied(in_a_plane([None, None, 0, 5, 90, None]), share=1.0)
    assert replaced([[1, 2, 4, 5, 0]] * 9, work)[:, [0, 2, 3, 4]].tolist() == [[1, 4, 5, 0]] * 9


def test_padding_is_near_no_word_whatever_its_vector():
    work = applied(in_a_plane([0, None, 1, 5]), share=1.0)
    assert replaced([[2, 3, 0]], work).tolist() == [[3, 2, 0]]


@pytest.mark.parametrize("vectors_VE", [None, in_a_plane([10, None, None])], ids=["no table", "padding alone"])
def test_a_task_without_word_vectors_is_refused(vectors_VE):
    facts = TrainingFacts(Classifier(), Words(vectors_VE=vectors_VE), STEPS, torch.Generator())
    with pytest.raises(BadInput, match=r"no word vectors to find synonyms by\. Leave out synonyms\."):
        Synonyms().build(facts)


def test_the_tasks_own_vectors_stay_as_they_are():
    vectors_VE = PAIRS.copy()
    replaced([[2, 3, 4]], applied(vectors_VE, share=1.0))
    assert np.array_equal(vectors_VE, PAIRS)
