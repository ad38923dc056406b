"""Objectives and limits as they are typed, and what a limit means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmine_auto.errors import BadInput
from deepmine_auto.objectives import UNKNOWN, Limit, Objective, limits_from, objectives_from

SCORES = {"macro_f1": "maximize", "log_loss": "minimize"}


def test_scores_and_costs_are_objectives_with_their_directions():
    assert objectives_from(["macro_f1", "latency_ms"], SCORES, "t") == (
        Objective("macro_f1", "maximize"),
        Objective("latency_ms", "minimize"),
    )


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["makro_f1"], r"'makro_f1' is no objective of the task 't'\. Did you mean 'macro_f1'\?"),
        (["macro_f1", "macro_f1"], r"An objective was given twice\. Name each --objective once\."),
        (["latency_ms"], r"'latency_ms' cannot be the first objective: .* Name a score first: macro_f1, log_loss\."),
    ],
)
def test_objectives_that_cannot_be_are_refused_with_a_sentence(names, sentence):
    with pytest.raises(BadInput, match=sentence):
        objectives_from(names, SCORES, "t")


def test_a_limit_is_read_as_it_is_typed():
    assert limits_from(["latency_ms<=5", " macro_f1 > .7 ", "params_million<1e1"], SCORES, "t") == (
        Limit("latency_ms", 1, 5.0),
        Limit("macro_f1", -1, 0.7),
        Limit("params_million", 1, 10.0),
    )
    assert [str(each) for each in limits_from(["latency_ms<=5", "macro_f1>.7"], SCORES, "t")] == [
        "latency_ms<=5",
        "macro_f1>=0.7",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("latency_ms=5", r"'latency_ms=5' is no limit\. Write it as 'latency_ms<=5'\."),
        ("latency_ms<=5ms", r"'latency_ms<=5ms' is no limit\."),
        ("latency<=5", r"'latency' is no score or cost of the task 't'\. Did you mean 'latency_ms'\?"),
    ],
)
def test_limits_that_cannot_be_are_refused_with_a_sentence(text, sentence):
    with pytest.raises(BadInput, match=sentence):
        limits_from([text], SCORES, "t")


@given(value=st.floats(-1e6, 1e6), bound=st.floats(-1e6, 1e6))
def test_the_excess_is_above_zero_where_and_only_where_a_limit_is_passed(value, bound):
    assert (Limit("x", 1, bound).excess({"x": value}) > 0) == (value > bound)
    assert (Limit("x", -1, bound).excess({"x": value}) > 0) == (value < bound)


def test_what_was_not_measured_is_over_every_limit():
    assert Limit("x", 1, 1e8).excess({}) == Limit("x", -1, 0.0).excess({"x": None}) == UNKNOWN > 0
