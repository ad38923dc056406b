"""What scores are worth: an interval holds its own value, and a verdict reads forwards in both directions."""

from dataclasses import replace

import numpy as np
import pytest

from deepmine_auto import TextClassification
from deepmine_auto.study.evidence import Evidence, intervals, weigh


class Texts(TextClassification):
    name = "texts"
    source = "a test"


TAIL = 40
"""So many classes have one row each."""
TARGETS = np.array([0] * 60 + [1] * 60 + [*range(2, 2 + TAIL)])
COMMON = TARGETS < 2


def said(predicted):
    return np.eye(2 + TAIL)[predicted]


OWN = said(np.where(COMMON & (np.arange(len(TARGETS)) % 10 > 0), TARGETS, 0))  # all of the tail is taken for class 0
BASELINE = said(np.zeros(len(TARGETS), int))


# -- intervals -------------------------------------------------------------------------------------------------------


def test_rare_classes_that_are_all_wrong_leave_macro_f1_and_its_lead_inside_their_intervals():
    """A draw over all rows would miss a third of them, and the mean over the others would be higher."""
    found = weigh(Texts(), "macro_f1", OWN, BASELINE, TARGETS, seed=0)
    value = found.scores["macro_f1"]
    for (low, high), inside in ((found.interval, value), (found.lead_interval, found.lead)):
        assert low < inside < high
    low, high = intervals(Texts(), OWN, TARGETS)["macro_f1"]
    assert low < value < high


def test_how_many_rows_are_rare_is_chance_too_and_accuracy_is_drawn_over_all_of_them():
    low, high = intervals(Texts(), said(np.where(COMMON, TARGETS, 0)), TARGETS)["accuracy"]
    assert low < COMMON.mean() < high


def test_every_score_has_an_interval():
    assert {*intervals(Texts(), OWN, TARGETS)} == {*Texts.directions}


def test_of_a_score_that_is_minimized_a_smaller_one_leads():
    found = weigh(Texts(), "log_loss", OWN, BASELINE, TARGETS, seed=0)
    assert found.scores["log_loss"] < found.baseline["log_loss"]
    assert found.lead == found.baseline["log_loss"] - found.scores["log_loss"]
    assert " below tf-idf [0." in found.sentence()
    assert found.to_json()["direction"] == "minimize"


# -- sentences -------------------------------------------------------------------------------------------------------

F1 = Evidence(
    objective="macro_f1",
    direction="maximize",
    baseline_name="tf-idf",
    rows=414,
    scores={"macro_f1": 0.871},
    baseline={"macro_f1": 0.808},
    interval=(0.836, 0.903),
    lead=0.063,
    lead_interval=(0.029, 0.098),
)
LOSS = replace(
    F1,
    objective="log_loss",
    direction="minimize",
    scores={"log_loss": 0.41},
    baseline={"log_loss": 1.04},
    interval=(0.352, 0.474),
    lead=0.63,
    lead_interval=(0.521, 0.744),
)


LIKELIHOOD = replace(
    F1,
    objective="likelihood",
    scores={"likelihood": -1.2},
    baseline={"likelihood": -3.3},
    interval=(-1.3, -1.1),
    lead=2.1,
    lead_interval=(1.9, 2.3),
)
"""It is maximized, and is no share of anything: its hundredths are no points."""


def behind(evidence):
    low, high = evidence.lead_interval
    return replace(evidence, lead=-evidence.lead, lead_interval=(-high, -low))


@pytest.mark.parametrize(
    ("evidence", "sentence"),
    [
        (F1, "macro-F1 0.871 [0.836, 0.903], 6.3 points over tf-idf [2.9, 9.8]"),
        (behind(F1), "macro-F1 0.871 [0.836, 0.903], 6.3 points behind tf-idf [2.9, 9.8]"),
        (LOSS, "log loss 0.410 [0.352, 0.474], 0.630 below tf-idf [0.521, 0.744]"),
        (LIKELIHOOD, "likelihood -1.200 [-1.300, -1.100], 2.100 above tf-idf [1.900, 2.300]"),
        (behind(LIKELIHOOD), "likelihood -1.200 [-1.300, -1.100], 2.100 below tf-idf [1.900, 2.300]"),
        (behind(LOSS), "log loss 0.410 [0.352, 0.474], 0.630 above tf-idf [0.521, 0.744]"),
    ],
)
def test_the_verdict_says_on_which_side_of_the_baseline_a_score_is(evidence, sentence):
    assert evidence.sentence() == sentence


@pytest.mark.parametrize("evidence", [F1, LOSS])
def test_where_the_lead_may_be_none_the_verdict_says_no_more(evidence):
    told = replace(evidence, lead_interval=(-0.01, 0.2)).sentence()
    assert told.endswith("], no significant difference to tf-idf")
