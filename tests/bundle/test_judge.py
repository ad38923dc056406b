"""A bundle is judged by the task's own scores, on labels that it knows."""

import pytest
import tiny
from sklearn.metrics import accuracy_score, f1_score

import deepmine_auto
from deepmine_auto import Rows
from deepmine_auto.bundle.judge import judge
from deepmine_auto.errors import BadInput

ROWS = Rows(["so good", "awful", "the best day :)", "sad and bad"], ["positive", "negative", "positive", "negative"])


def test_scores_are_scikit_learns_inside_their_intervals():
    bundle = deepmine_auto.load(tiny.bundle())
    found = judge(bundle, ROWS)
    predicted = [each["label"] for each in bundle.predict(ROWS.inputs)]
    assert found["scores"]["accuracy"]["value"] == pytest.approx(accuracy_score(ROWS.labels, predicted))
    assert found["scores"]["macro_f1"]["value"] == pytest.approx(f1_score(ROWS.labels, predicted, average="macro"))
    assert all(each["low"] <= each["value"] <= each["high"] for each in found["scores"].values())
    assert [each["rows"] for each in found["classes"].values()] == [2, 2]
    assert found["sentence"].startswith("macro-F1 ")
    assert found["sentence"].endswith("] on 4 rows")


def test_rows_of_one_class_can_be_judged():
    assert judge(deepmine_auto.load(tiny.bundle()), ROWS.take([0]))["classes"]["negative"]["rows"] == 0


def test_unknown_labels_are_refused_with_those_that_are_known():
    rows = Rows(["a", "b", "c"], ["neutral", "positive", "mixed"])
    told = r"does not know the labels 'mixed', 'neutral'\. It knows 'negative', 'positive'"
    with pytest.raises(BadInput, match=told):
        judge(deepmine_auto.load(tiny.bundle()), rows)
