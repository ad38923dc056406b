import json
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import BPE

from deepmine_auto import BadInput, Rows, Source, TextClassification, classification
from deepmine_auto.classification import Fitted, TextPrepared

TRAIN = Rows(["good good day", "good good tea", "a bad day", "the worst day of all days"], ["up", "up", "up", "down"])


@dataclass(frozen=True, kw_only=True)
class Mood(TextClassification):
    name: ClassVar[str] = "mood"
    source: ClassVar[str] = "tests"


@pytest.fixture
def prepared():
    return Mood().prepare(TRAIN)


# -- what is fitted ----------------------------------------------------------------------------------------------------


def test_labels_are_classes_in_sorted_order(prepared):
    assert prepared.fitted.labels == ("down", "up")
    assert prepared.outputs == 2
    targets = prepared.targets(TRAIN)
    assert targets.tolist() == [1, 1, 1, 0]
    assert targets.dtype == np.int64


def test_labels_that_are_numbers_are_read_as_text():
    prepared = Mood().prepare(Rows(["a", "b"], [1, 0]))
    assert prepared.targets(Rows(["c", "d"], ["1", 0])).tolist() == [1, 0]


def test_class_weights_give_each_class_the_same_say(prepared):
    assert prepared.fitted.class_weights == (4 / 2 / 1, 4 / 2 / 3)
    assert np.mean([prepared.fitted.class_weights[each] for each in prepared.targets(TRAIN)]) == 1.0


def test_an_unknown_label_is_refused_with_the_nearest_one(prepared):
    with pytest.raises(BadInput, match=r"'downn' is no label of the training rows\. Did you mean 'down'\?"):
        prepared.targets(Rows(["a text"], ["downn"]))


def test_rows_of_one_label_are_refused():
    with pytest.raises(BadInput, match="Every training row has the label 'up'"):
        Mood().prepare(TRAIN.take([0, 1]))


def test_no_rows_are_refused():
    with pytest.raises(BadInput, match=r"There is no training row\."):
        Mood().prepare(TRAIN.take([]))


def test_pretrained_words_have_their_vectors_and_others_zeros(prepared):
    assert prepared.vectors_VE.shape == (prepared.vocabulary, 50)
    (good, unknown), (excellent,) = prepared.encode(["good qzxvk", "excellent"])
    assert unknown == 1
    assert excellent > good > 1, "a word that training never saw keeps its pretrained vector"
    assert prepared.vectors_VE[[good, excellent]].any(1).all()
    assert not prepared.vectors_VE[:2].any()


@pytest.mark.parametrize("tokens", ["word", "subword"])
def test_other_tokens_have_no_vectors_and_a_small_vocabulary(tokens):
    prepared = Mood(tokens=tokens).prepare(TRAIN)
    assert prepared.vectors_VE is None
    assert prepared.vocabulary < 100


def test_a_long_text_is_cut(prepared):
    short = replace(prepared, fitted=replace(prepared.fitted, max_len=3))
    assert short.encode(["good good good good bad"]) == [prepared.encode(["good"])[0] * 3]


def byte_pairs():
    """A tokenizer like that of GPT-2, which masks nothing and knows all."""
    names = ["!", '"', "<|end|>", "<|pad|>", *"abc"]
    return Tokenizer(BPE({name: at for at, name in enumerate(names)}, []))


@pytest.mark.parametrize(
    ("architecture", "unknown"),
    [
        ({"pad_token_id": 3, "eos_token_id": 2}, 3),
        ({"pad_token_id": None, "eos_token_id": 2}, 2),
        ({"eos_token_id": [2, 3]}, 2),
        ({"eos_token_id": 50_256, "bos_token_id": 2}, 2),
        ({"eos_token_id": []}, 1),
    ],
)
def test_where_a_pretrained_model_has_no_unknown_token_none_that_is_a_word_stands_for_it(architecture, unknown):
    fitted = Fitted(("down", "up"), (1.0, 1.0), 8, pretrained=False, architecture=architecture)
    assert TextPrepared.of(byte_pairs(), fitted).unknown == unknown


def test_what_prepare_depends_on_is_declared():
    others = {"tokens": "subword", "max_len": 2, "subwords": 20, "class_weights": True, "head_dropout": 0.0}
    subword = Mood(tokens="subword")
    for name, value in others.items():
        start = Mood() if name == "tokens" else subword
        before, after = (task.prepare(TRAIN) for task in (start, replace(start, **{name: value})))
        same = before.tokenizer.to_str() == after.tokenizer.to_str() and before.fitted == after.fitted
        assert same == (name not in Mood.fitted_by), name


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", ["glove", "word", "subword"])
def test_what_is_saved_holds_no_vectors_and_is_read_back_the_same(tokens, tmp_path):
    prepared = Mood(tokens=tokens).prepare(TRAIN)
    prepared.save(tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["prepared.json", "tokenizer.json"]
    again = Mood().load(tmp_path)
    assert again.fitted == prepared.fitted
    assert again.encode(["the good worst tea excellent"]) == prepared.encode(["the good worst tea excellent"])
    np.testing.assert_array_equal(again.vectors_VE, prepared.vectors_VE)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"labels": 3, "class_weights": [], "max_len": 1, "pretrained": true}']
)
def test_a_file_that_nothing_saved_is_refused(prepared, tmp_path, text):
    prepared.save(tmp_path)
    (tmp_path / "prepared.json").write_text(text)
    with pytest.raises(BadInput, match=r"prepared\.json is not what a text task saved"):
        TextPrepared.load(tmp_path)


# -- reading -----------------------------------------------------------------------------------------------------------


def test_a_note_counts_the_texts_that_will_be_cut(tmp_path):
    file = tmp_path / "moods.csv"
    file.write_text("text,label\n" + "".join(f"{'so ' * 9}{i},up\ntoo {i},down\n" for i in range(4)))
    source = Source({"all": file})
    assert Mood(max_len=9).read(source).notes == ("4 of 8 texts have more than 9 words and are cut there.",)
    assert Mood(max_len=10).read(source).notes == ()


def test_the_description_counts_labels_and_words():
    described = Mood().describe(TRAIN)
    assert described == {"rows": 4, "labels": {"down": 1, "up": 3}, "median_words": 3.0, "longest_words": 6}


# -- loss and scores ---------------------------------------------------------------------------------------------------


def test_class_weights_make_the_rare_class_dearer(prepared):
    outputs_BC, targets_B = torch.zeros(2, 2), torch.tensor([0, 1])
    outputs_BC[0, 1] = 3.0  # wrong about the rare class, undecided about the other
    plain = Mood().loss(outputs_BC, targets_B, prepared)
    weighted = Mood(class_weights=True).loss(outputs_BC, targets_B, prepared)
    each_B = torch.nn.functional.cross_entropy(outputs_BC, targets_B, reduction="none")
    assert plain.item() == pytest.approx(each_B.mean().item())
    assert weighted.item() == pytest.approx(((each_B[0] * 2 + each_B[1] * 2 / 3) / (2 + 2 / 3)).item())


def test_a_class_that_is_nowhere_does_not_count():
    outputs_NC = np.array([[2.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    assert Mood().scores(outputs_NC, np.array([0, 0]))["macro_f1"] == 1.0


def test_sure_and_wrong_is_a_large_loss_and_no_infinite_one():
    scores = Mood().scores(np.array([[1e4, -1e4]], np.float32), np.array([1]))
    assert scores == {"macro_f1": 0.0, "accuracy": 0.0, "log_loss": 2e4}


# -- answers and baseline ----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=1, max_size=5))
def test_an_answer_is_the_likeliest_label_with_probabilities_that_sum_to_one(outputs):
    answers = Mood().answers(np.array(outputs), Mood(tokens="word").prepare(TRAIN))
    for answer in json.loads(json.dumps(answers)):
        assert sorted(answer["probabilities"]) == ["down", "up"]
        assert sum(answer["probabilities"].values()) == pytest.approx(1.0)
        assert answer["probability"] == answer["probabilities"][answer["label"]]
        assert answer["probability"] == max(answer["probabilities"].values())


def test_the_baseline_learns_what_words_say():
    train = Rows([f"{word} {i}" for i in range(6) for word in ("sun", "rain")], ["fine", "wet"] * 6)
    test = Rows(["sun 77", "rain 77", "so much rain"], ["fine", "wet", "wet"])
    prepared = Mood().prepare(train)
    outputs_NC = Mood().baseline(train, test, prepared)
    assert Mood().scores(outputs_NC, prepared.targets(test))["macro_f1"] == 1.0
    np.testing.assert_allclose(np.exp(outputs_NC).sum(1), 1.0)


@pytest.mark.parametrize(("weights", "alike"), [(3, True), (4, False)])
def test_the_baseline_knows_the_commonest_words_alone_where_there_are_very_many(monkeypatch, weights, alike):
    """With two classes, three weights are enough for one word, and the commonest says nothing; four are for two."""
    monkeypatch.setattr(classification, "MOST_WEIGHTS", weights)
    train = Rows(["sun and", "rain and"] * 6, ["fine", "wet"] * 6)
    fine, wet = Mood().baseline(train, train.take([0, 1]), Mood().prepare(train))
    assert np.array_equal(fine, wet) == alike


def test_the_baseline_answers_in_the_order_of_the_classes_where_one_is_missing(prepared):
    three = Mood().prepare(Rows([*TRAIN.inputs, "so so"], ["b", "b", "c", "c", "a"]))
    outputs_NC = Mood().baseline(Rows(TRAIN.inputs, ["b", "b", "c", "c"]), TRAIN, three)
    assert outputs_NC.argmax(1).tolist() == [1, 1, 2, 2]
    assert np.isfinite(outputs_NC).all()


def test_on_the_tweets_the_baseline_is_no_straw_man(test_data):
    from deepmine_auto.data.split import split, without_duplicates
    from deepmine_plugins.tasks.sentiment import Sentiment

    task = Sentiment()
    rows = without_duplicates(task.read(Source()))
    train, _, test = map(rows.take, split(task.strata(rows), 0))
    prepared = task.prepare(train)
    scores = task.scores(task.baseline(train, test, prepared), prepared.targets(test))
    assert scores["macro_f1"] > 0.75
