import torch
from hypothesis import given
from hypothesis import strategies as st

from deepmine_auto import Batch, TrainingFacts
from deepmine_auto.testing.technique import STEPS, Classifier, TechniquePromises, Trial, Words
from deepmine_plugins.techniques.word_dropout import WordDropout


class TestWordDropout(TechniquePromises):
    technique = WordDropout


def texts(lengths, longest):
    keep_BL = torch.arange(longest) < torch.tensor(lengths)[:, None]
    return Batch(7 * keep_BL, keep_BL, torch.zeros(len(lengths)))


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=8), share=st.floats(0.02, 1.0))
def test_every_text_keeps_a_word_and_its_padding(lengths, share):
    batch = texts(lengths, 6)
    tokens_BL = Trial(WordDropout(share=share)).applied.on_batch(batch).tokens_BL
    assert (tokens_BL == 7).any(1).all()
    assert ((tokens_BL == 0) == ~batch.keep_BL).all()
    assert set(tokens_BL.unique().tolist()) <= {0, 1, 7}


def test_even_where_all_would_go_one_word_of_each_text_stays():
    tokens_BL = Trial(WordDropout(share=1.0)).applied.on_batch(texts([1, 3, 6], 6)).tokens_BL
    assert (tokens_BL == 7).sum(1).tolist() == [1, 1, 1]
    assert (tokens_BL == 1).sum(1).tolist() == [0, 2, 5]


def test_the_share_of_unknown_words_is_the_one_asked_for():
    tokens_BL = Trial(WordDropout(share=0.3)).applied.on_batch(texts([100] * 200, 100)).tokens_BL
    assert abs((tokens_BL == 1).double().mean().item() - 0.3) < 0.01


def test_a_pretrained_model_gets_its_own_unknown_word_and_keeps_its_marks():
    facts = TrainingFacts(Classifier(), Words(), STEPS, torch.Generator().manual_seed(0), unknown=5, marks=(2, 3))
    batch = Batch(
        torch.tensor([[2, 7, 8, 9, 3], [2, 3, 0, 0, 0]]),
        torch.tensor([[True] * 5, [True] * 2 + [False] * 3]),
        torch.zeros(2),
    )
    dropped, marks_alone = WordDropout(share=1.0).build(facts).on_batch(batch).tokens_BL.tolist()
    assert (dropped[0], dropped[-1]) == (2, 3)
    assert sorted(dropped[1:-1])[:2] == [5, 5]
    assert marks_alone == [2, 3, 0, 0, 0]
