"""Paraphrases in a training: those of the split's training rows, and of no other, by the row that they stand for."""

from dataclasses import replace

import pytest
from alike import CERTAIN, SGD, assert_goes_on, assert_learns_the_same, curve, run
from tiny_texts import assignment, kept, rows

from deepmine_auto.data.kept import SEARCH, rows_of
from deepmine_auto.host import the_host
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


def test_they_change_what_is_learned(folder):
    plain, reworded = run(assignment(folder, number=1)), run(assignment(folder, number=2, params=ON))
    assert curve(plain) != curve(reworded)


def test_interrupted_it_goes_on_bit_for_bit(folder, monkeypatch):
    assert_goes_on(assignment(folder, number=3, params=ON), monkeypatch)


def test_in_parts_it_learns_the_same(folder):
    work = assignment(folder, number=5, params={**CERTAIN, **SGD, **ON, "training/batch": 25})
    assert_learns_the_same(work, halvings=2)
