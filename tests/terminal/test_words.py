import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmine_auto.study.budget import duration
from deepmine_auto.terminal.words import (
    BARS,
    Scale,
    lead_words,
    model_words,
    plain,
    scale_of,
    shortened,
    sparkline,
    table,
)

PARAMS = {
    "attention/kind": "sliding_window",
    "attention/sliding_window/window": 64,
    "attention/rotary/use": True,
    "attention/rotary/base": 10000.0,
    "attention/learned_temperature/use": False,
    "model/depth": 2,
    "model/dim": 128,
    "model/heads": 4,
    "optimizer/kind": "adamw",
    "optimizer/adamw/lr": 4.8e-4,
    "technique/ema/use": True,
}


def test_a_pretrained_model_is_told_by_the_end_of_its_name_and_what_of_it_learns():
    params = {"attention/kind": "multi_head", "model/kind": "pretrained", "model/pretrained/origin": "/a/b/mini/model"}
    tuned = {**params, "tuning/kind": "lora", "tuning/lora/rank": 16, "tuning/lora/targets": "linear"}
    assert model_words(tuned) == "multi_head, mini/model, lora r16 linear"
    assert model_words({**params, "model/pretrained/origin": "org/name@abc"}) == "multi_head, org/name"


def test_a_model_is_told_by_its_attention_first():
    assert model_words(PARAMS) == "sliding_window w64, rotary b1e+04, depth 2, dim 128, 4 heads, adamw lr 4.8e-04"


def test_params_of_other_kinds_and_unused_modifiers_are_not_told():
    params = {**PARAMS, "attention/linear/width": 3, "attention/learned_temperature/start": 0.5}
    assert model_words(params) == model_words(PARAMS)


def test_a_field_that_is_on_has_its_name_and_one_that_is_off_has_none():
    params = {"attention/kind": "own", "attention/own/causal": True, "attention/own/gated": False}
    assert model_words({**params, "attention/own/kv_heads": 2, "attention/own/form": "wide"}) == "own causal kh2 wide"


@given(st.dictionaries(st.text(), st.booleans() | st.integers() | st.floats() | st.text()))
def test_any_params_can_be_told(params):
    assert model_words(params).isprintable() or "\x1b" not in model_words(params)


@given(st.text(alphabet=st.characters() | st.sampled_from("\x1b[]0m;\x07\x9b\u202e\n\t")))
def test_nothing_that_steers_a_terminal_is_left(text):
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", plain(text))


def test_an_escape_sequence_is_removed_whole():
    assert plain("a\x1b[31mb\x1b]0;title\x07c") == "abc"


@given(st.lists(st.floats(-1e6, 1e6)), st.sampled_from(["maximize", "minimize"]), st.integers(1, 12))
def test_a_sparkline_is_never_wider_than_it_may_be(values, direction, width):
    drawn = sparkline(values, scale_of(values, direction), width)
    assert len(drawn) == min(width, len(values))
    assert set(drawn) <= set(BARS)


def test_a_sparkline_ends_with_the_newest_value():
    assert sparkline([0.0] * 99 + [1.0], Scale(0.0, 1.0), 5) == "▁▁▁▁█"


def test_the_worst_tenth_does_not_set_the_scale():
    values = [0.01, 0.5, 0.6, 0.7, 0.71, 0.72, 0.73, 0.74, 0.75, 0.8]
    assert scale_of(values, "maximize") == Scale(0.5, 0.8)
    assert scale_of([-each for each in values], "minimize") == Scale(-0.8, -0.5)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.6, "1m00s"), (243, "4m03s"), (7500, "2h05m"), (3599.7, "1h00m"), (273600, "3d04h"), (-1, "0s")],
)
def test_a_duration_has_two_units_at_most(seconds, text):
    assert duration(seconds) == text


def test_a_lead_is_told_in_points_whichever_side_it_is_on():
    assert lead_words(0.871, 0.850, "tf-idf", "maximize") == "+2.1 pp over tf-idf"
    assert lead_words(0.829, 0.850, "tf-idf", "maximize") == "2.1 pp under tf-idf"
    assert lead_words(0.30, 0.35, "tf-idf", "minimize") == "0.050 below tf-idf"
    assert lead_words(0.40, 0.35, "tf-idf", "minimize") == "0.050 above tf-idf"


def test_numbers_stand_to_the_right_and_words_to_the_left():
    assert table(("n", "word"), [("1", "a"), ("10", "bcd")]) == " n  word\n 1  a\n10  bcd"


@given(st.lists(st.tuples(st.text(), st.text()), max_size=5), st.integers(1, 80))
def test_no_line_of_a_table_is_wider_than_the_terminal(rows, width):
    assert all(len(line) <= width for line in table(("one", "two"), rows, width).split("\n"))


def test_what_is_too_long_ends_with_an_ellipsis():
    assert shortened("abcdef", 4) == "abc…"
    assert shortened("abcdef", None) == "abcdef"
