"""A batch that is asked to be worked off in parts moves the weights as if it were whole, and needs less memory."""

import pytest
from alike import CERTAIN, SGD, assert_alike, curve, judged_at_once, kept_bytes, last_weights, run
from tiny_texts import assignment, kept

from deepmine_auto.host import the_host
from deepmine_auto.planning.calibrating import _forward_seconds
from deepmine_auto.training.loop import Training
from deepmine_auto.training.measure import costs_of
from deepmine_auto.training.outputs import EVALUATION_ROWS
from deepmine_auto.training.step import OneStep

USE, PARTS = "technique/gradient_accumulation/use", "technique/gradient_accumulation/parts"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return kept(tmp_path_factory.mktemp("study") / "study")


def training_of(folder, parts=None, halvings=0, **params):
    asked = {} if parts is None else {USE: True, PARTS: parts}
    everything = {**CERTAIN, **SGD, "training/batch": 64, **params, **asked}
    return Training(assignment(folder, halvings=halvings, params=everything), the_host())


def gradients(training):
    """Those of the first batch."""
    step = OneStep(training, *training.draw())
    step.backward(step.loss(step.outputs()))
    return {name: each.grad for name, each in training.model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("parts", [2, 4, 8, 16])
def test_the_gradients_are_those_of_the_whole_batch(folder, parts):
    assert_alike(gradients(training_of(folder, parts)), gradients(training_of(folder)))


def test_a_whole_training_learns_the_same(folder, monkeypatch):
    monkeypatch.setattr(Training, "_due", lambda _: True)
    params = {**CERTAIN, **SGD, "training/batch": 25}
    whole, parted = (
        run(assignment(folder, number=number, params={**params, **more}))
        for number, more in ((1, {}), (2, {USE: True, PARTS: 4}))
    )
    assert curve(parted) == [(step, pytest.approx(value, abs=1e-5)) for step, value in curve(whole)]
    assert_alike(last_weights(parted, folder), last_weights(whole, folder))


@pytest.mark.parametrize(("asked", "halvings", "parts"), [(None, 0, 1), (None, 2, 4), (4, 0, 4), (4, 1, 8), (4, 2, 16)])
def test_what_did_not_fit_in_the_parts_that_were_asked_for_is_halved(folder, monkeypatch, asked, halvings, parts):
    training, seen = training_of(folder, asked, halvings), []
    training.model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    batch = training.draw()[0]
    training.forward(batch.tokens_BL, batch.keep_BL)
    assert seen == [64 // parts] * parts == [64 // training.parts] * parts


def test_the_activations_of_the_parts_are_not_kept(folder):
    assert kept_bytes(training_of(folder, 4)) < kept_bytes(training_of(folder)) / 10


def test_the_peak_is_that_of_one_part(folder):
    whole, half, quarter = (costs_of(training_of(folder, each))["peak_mb"] for each in (None, 2, 4))
    assert quarter < half < whole
    assert quarter == costs_of(training_of(folder, halvings=2))["peak_mb"]


def test_a_dry_run_looks_at_one_part(folder):
    training, seen = training_of(folder, 4), []
    training.model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    _forward_seconds(training)
    assert set(seen) == {64 // 4}


def test_evaluations_shrink_with_the_parts(folder, monkeypatch):
    seen = [judged_at_once(training_of(folder, parts), monkeypatch) for parts in (None, 2, 16)]
    assert seen == [EVALUATION_ROWS, EVALUATION_ROWS // 2, EVALUATION_ROWS // 16]
