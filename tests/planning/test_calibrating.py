"""Models are drawn, sized and measured in a folder of their own."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_texts import PARAMS, kept

from deepmine_auto.errors import BadInput, DeepmineError
from deepmine_auto.host import the_host
from deepmine_auto.planning import calibrating
from deepmine_auto.planning.calibrating import drawn, for_a_while, outwards, sample
from deepmine_auto.space import Choice, Float, Param, Space

SEARCHED = ("attention/kind", "model/dim", "optimizer/adamw/lr")
SPACE = Space(
    (
        Param("attention/kind", Choice("multi_head", "linear"), {}),
        Param("model/dim", Choice(16, 64), {}),
        Param("optimizer/adamw/lr", Float(1e-4, 1e-2, log=True), {}),
    ),
    {name: value for name, value in PARAMS.items() if name not in SEARCHED},
    ({"attention/kind": "linear", "model/dim": 64},),
)
SPEC = {"task": "text_classification", "objective": "log_loss", "seed": 3}


@pytest.fixture
def hurried(monkeypatch):
    """Few models, and few steps of each."""
    monkeypatch.setattr(calibrating, "DRAWN", 8)
    monkeypatch.setattr(calibrating, "FEWEST_DRAWN", 8)
    monkeypatch.setattr(calibrating, "STEPPING_SECONDS", 0.0)


def test_the_recipes_are_drawn_first_and_every_value_lies_in_its_range():
    found = drawn(SPACE, 20, 5)
    assert (found[0]["attention/kind"], found[0]["model/dim"]) == ("linear", 64)
    for each in found:
        assert each["training/epochs"] == PARAMS["training/epochs"], "what is fixed is there too"
        assert all(each[param.name] in param.range for param in SPACE.params)
    assert len({str(each) for each in found}) == 20
    assert found == drawn(SPACE, 20, 5) != drawn(SPACE, 20, 6)


@given(st.integers(0, 200))
def test_the_ends_come_first_and_every_place_once(count):
    order = outwards(count)
    assert sorted(order) == list(range(count))
    assert order[:3] == [0, 9, 4] if count == 10 else set(order[:2]) == {0, count - 1} or count < 2


def test_what_is_done_for_a_while_is_done_often_enough():
    assert list(for_a_while(range(9), 3, -1.0)) == [0, 1, 2]
    assert list(for_a_while(range(9), 3, 60.0)) == list(range(9))


def test_models_are_sized_and_some_of_them_measured(tmp_path, hurried, monkeypatch):
    monkeypatch.setattr(calibrating, "MEASURING_SECONDS", 0.0)
    found = sample(SPACE, SPEC, the_host(), kept(tmp_path / "study"))
    assert (found.drawn, len(found.sized), len(found.measured), found.refused) == (8, 8, 3, {})
    expected = [each.forwards_seconds for each in found.sized]
    assert expected == sorted(expected), "the smallest and the largest can be told by their place"
    assert {0, 7} < set(found.measured)
    for place, measured in found.measured.items():
        sized = found.sized[place]
        assert sized.steps == 4 * 4, "four epochs of 64 rows in batches of 16"
        assert sized.evaluations == 9
        assert measured.seconds > 0
        assert measured.checkpoint_mb > sized.moving * 4 * 3 / 1e6, "weights, and two moments of each"
        assert measured.peak_mb == pytest.approx(sized.peak_mb + 2 * sized.moving * 4 / 1e6, rel=0.01)
    assert len({each.parameters for each in found.sized}) > 1, "models of both sizes were drawn"


def test_a_model_that_cannot_be_built_or_trained_is_counted_and_the_others_are_measured(tmp_path, hurried, monkeypatch):
    def build(self, shape):
        raise BadInput("No such shape.", "Take another.")

    monkeypatch.setattr(the_host().get("attention", "linear"), "build", build)
    found = sample(SPACE, SPEC, the_host(), kept(tmp_path / "study"))
    (reason,) = found.refused
    assert reason == "No such shape. Take another."
    assert found.refused[reason] + len(found.sized) == found.drawn == 8
    assert {each.params["attention/kind"] for each in found.sized} == {"multi_head"}


def test_a_plugin_that_raises_in_a_step_breaks_only_its_own_models(tmp_path, hurried, monkeypatch):
    from deepmine_auto.training.step import take_step

    def step(training, *batches):
        if training.assignment.params["attention/kind"] == "linear":
            raise ZeroDivisionError("in the middle")
        return take_step(training, *batches)

    monkeypatch.setattr(calibrating, "take_step", step)
    found = sample(SPACE, SPEC, the_host(), kept(tmp_path / "study"))
    assert set(found.refused) == {"ZeroDivisionError: in the middle"}
    assert found.drawn == 8
    kinds = {found.sized[place].params["attention/kind"] for place in found.measured}
    assert kinds == {"multi_head"}


def test_where_no_model_can_be_trained_the_reason_is_told(tmp_path, hurried, monkeypatch):
    def build(self, prepared, attention):
        raise ValueError("not today")

    monkeypatch.setattr(the_host().get("backbone", "encoder"), "build", build)
    with pytest.raises(DeepmineError, match=r"No model of 8 could be trained: ValueError: not today"):
        sample(SPACE, SPEC, the_host(), kept(tmp_path / "study"))


def test_ctrl_c_ends_it(tmp_path, hurried, monkeypatch):
    def build(self, prepared, attention):
        raise KeyboardInterrupt

    monkeypatch.setattr(the_host().get("backbone", "encoder"), "build", build)
    with pytest.raises(KeyboardInterrupt):
        sample(SPACE, SPEC, the_host(), kept(tmp_path / "study"))


def test_models_are_trained_on_one_thread_and_the_process_has_its_own_again(tmp_path, hurried, monkeypatch):
    before, seen = torch.get_num_threads(), []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    with calibrating.one_thread():
        pass
    assert seen == [1, before]


@pytest.mark.parametrize("work", ["costs_of", "take_step"])
def test_a_model_that_fits_into_memory_with_halved_batches_is_measured_with_them(tmp_path, hurried, monkeypatch, work):
    whole = getattr(calibrating, work)

    def short(training, *batches):
        if not training.assignment.halvings:
            raise torch.OutOfMemoryError("too large")
        return whole(training, *batches)

    monkeypatch.setattr(calibrating, work, short)
    monkeypatch.setattr(calibrating, "MEASURING_SECONDS", 0.0)
    found = sample(SPACE, SPEC, the_host(), kept(tmp_path / "study"))
    assert (found.drawn, len(found.sized), len(found.measured), found.refused) == (8, 8, 3, {})
    assert {each.halvings for each in found.sized} == {1 if work == "costs_of" else 0}


def test_a_model_that_does_not_fit_row_by_row_either_is_counted_once(tmp_path, hurried, monkeypatch):
    tried = []

    def short(training):
        tried.append(training.assignment.halvings)
        raise MemoryError("too large")

    monkeypatch.setattr(calibrating, "costs_of", short)
    with pytest.raises(DeepmineError, match=r"No model of 8 could be trained: MemoryError: too large"):
        sample(SPACE, SPEC, the_host(), kept(tmp_path / "study"))
    assert tried == [0, 1, 2, 3, 4] * 8, "of 16 rows one was tried"
