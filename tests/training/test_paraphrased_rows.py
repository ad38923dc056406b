"""Paraphrases in a training: those of the split's training rows, and of no other, by the row that they stand for."""

from dataclasses import replace

import pytest
from alike import CERTAIN, SGD, assert_alike, curve, last_weights
from tiny_texts import assignment, kept, rows

from deepmine_auto.data.kept import SEARCH, rows_of
from deepmine_auto.host import the_host
from deepmine_auto.messages import Reported
from deepmine_auto.training import trial
from deepmine_auto.training.loop import Training

PAIRS = [(text, f"in other words {text}") for text in rows().inputs[:50]] + [(rows().inputs[0], "short")]
ON = {"technique/paraphrases/use": True, "technique/paraphrases/share": 0.8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return kept(tmp_path_factory.mktemp("study") / "study", paraphrases=PAIRS)


@pytest.mark.parametrize("split", [SEARCH, "rerun-1"])
def test_they_stand_for_the_training_rows_of_the_split(folder, split):
    training = Training(replace(assignment(folder, params=ON), split=split), the_host())
    texts = rows_of(folder, split, "train").inputs
    told = training.techniques["paraphrases"].facts.paraphrases
    expected = {
        row: [training.prepared.encode([words])[0] for of, words in PAIRS if of == text]
        for row, text in enumerate(texts)
        if text in dict(PAIRS)
    }
    assert {row: [each.tolist() for each in known] for row, known in told.items()} == expected
    assert 20 < len(expected) < len(texts)


def test_without_a_file_a_training_has_none(tmp_path):
    training = Training(assignment(kept(tmp_path / "study"), params=ON), the_host())
    assert training.techniques["paraphrases"].facts.paraphrases == {}


def run(work):
    return list(trial.messages(work, the_host()))


def test_they_change_what_is_learned(folder):
    plain, reworded = run(assignment(folder, number=1)), run(assignment(folder, number=2, params=ON))
    assert curve(plain) != curve(reworded)


def test_interrupted_it_goes_on_bit_for_bit(folder, monkeypatch):
    monkeypatch.setattr(Training, "_due", lambda self: True)
    work = assignment(folder, number=3, params=ON)
    whole = run(work)
    middle = next(each for each in whole if isinstance(each, Reported) and each.step >= 8)
    rest = run(replace(work, attempt=2, checkpoints=(middle.checkpoint,)))
    assert curve(rest) == [(step, value) for step, value in curve(whole) if step > middle.step]
    assert curve(rest)


def test_in_parts_it_learns_the_same(folder):
    work = assignment(folder, number=5, params={**CERTAIN, **SGD, **ON, "training/batch": 21})
    whole, parts = run(work), run(replace(work, number=6, halvings=2))
    assert curve(parts) == [(step, pytest.approx(value, abs=1e-5)) for step, value in curve(whole)]
    assert_alike(last_weights(parts, folder), last_weights(whole, folder))
