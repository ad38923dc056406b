"""What techniques may ask of a step: its batch again, other odds, other learning rates."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from alike import assert_goes_on
from tiny_texts import assignment, kept

from deepmine_auto import Applied
from deepmine_auto.host import the_host
from deepmine_auto.model.guard import Refused
from deepmine_auto.training.loop import Training
from deepmine_auto.training.step import OneStep, take_step


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return kept(tmp_path_factory.mktemp("study") / "study")


def training_of(folder, **params):
    """A training without dropout, by plain gradient descent."""
    still = {"model/encoder/dropout": 0.0, "data/head_dropout": 0.0, "optimizer/kind": "sgd"}
    still["optimizer/sgd/decay"] = 0.0
    return Training(assignment(folder, params={**still, **params}), the_host())


def first_batch(training):
    return training.train.batch(np.arange(8))


def used_with(training, applied):
    training.techniques = {"fake": applied}
    return training


def moved(folder, applied):
    """How far the first step moves each weight, whose gradients are not clipped."""
    training = used_with(training_of(folder), applied)
    training.recipe = replace(training.recipe, clip=1e9)
    before = {name: each.detach().clone() for name, each in training.model.named_parameters()}
    loss = take_step(training, first_batch(training))
    return loss, {name: each.detach() - before[name] for name, each in training.model.named_parameters()}


class Twice(Applied):
    """Adds the gradients of the loss once more."""

    def after_backward(self, step):
        step.backward(step.loss(step.outputs()))


class MoreLoss(Applied):
    """Adds the loss once more to itself."""

    def more_loss(self, step, outputs):
        return step.loss(step.outputs())


@pytest.mark.parametrize("again", [Twice, MoreLoss])
def test_working_a_batch_off_once_more_doubles_what_it_says(folder, again):
    loss, once = moved(folder, Applied())
    more, twice = moved(folder, again())
    assert more.item() == pytest.approx(loss.item() * (2 if again is MoreLoss else 1), rel=1e-5)
    for name, way in once.items():
        torch.testing.assert_close(twice[name], 2 * way, rtol=1e-3, atol=1e-6)


def test_gradients_that_are_there_are_added_to_and_not_worked_into(folder):
    """Several workers add up whatever stands in a gradient, so a second pass must begin from nothing."""
    training = training_of(folder)
    step = OneStep(training, first_batch(training))
    seen = []
    weight = next(each for each in training.model.parameters() if each.requires_grad)
    step.backward(step.loss(step.outputs()))
    weight.register_post_accumulate_grad_hook(lambda each: seen.append(each.grad.clone()))
    first = weight.grad.clone()
    step.backward(step.loss(step.outputs()))
    torch.testing.assert_close(seen[0], first)
    torch.testing.assert_close(weight.grad, 2 * first)


def test_a_batch_is_changed_once_however_often_it_is_worked_off(folder):
    class Counting(Applied):
        batches = 0

        def on_batch(self, batch):
            self.batches += 1
            return batch

        def after_backward(self, step):
            step.backward(step.loss(step.outputs()))

    applied = Counting()
    moved(folder, applied)
    assert applied.batches == 1


def test_a_training_that_draws_dropout_for_several_passes_of_a_step_goes_on_bit_for_bit(folder, monkeypatch):
    assert_goes_on(assignment(folder, number=9, params={"technique/vat/use": True}), monkeypatch)


def test_a_weight_moves_as_fast_as_the_technique_says(folder):
    class Slower(Applied):
        def rates(self, model):
            return {name: 0.5 for name, _ in model.named_parameters() if name.startswith("head")}

    training = training_of(folder)
    plain = training.rates[0]
    used_with(training, Slower())
    training.renew_optimizer()
    rates = {id(each): group["lr"] for group in training.optimizer.param_groups for each in group["params"]}
    named = {name: rates[id(each)] for name, each in training.model.named_parameters() if each.requires_grad}
    assert {rate for name, rate in named.items() if name.startswith("head")} == {plain * 0.5}
    assert {rate for name, rate in named.items() if not name.startswith("head")} == {plain}


def test_the_odds_of_techniques_multiply(folder):
    class Odds(Applied):
        def __init__(self, high):
            self.high = high

        def odds(self, targets):
            return np.where(targets == 1, self.high, 1.0)

    training = training_of(folder)
    training.techniques = {"one": Odds(2.0), "two": Odds(3.0), "none": Applied()}
    assert set(training._odds()[training.train.targets == 1]) == {6.0}
    training.techniques = {"none": Applied()}
    assert training._odds() is None


def test_rows_are_drawn_by_the_odds(folder):
    training = training_of(folder, **{"technique/balanced_sampling/use": True})
    assert training._odds() is not None
    drawn = np.concatenate([next(training.batches) for _ in range(200)])
    assert np.bincount(drawn, minlength=len(training.train)).std() > 0, "some are drawn more often than others"


def test_two_techniques_that_judge_other_weights_are_refused(folder):
    with pytest.raises(Refused, match="ema and weight_average would both put other weights in the place"):
        training_of(folder, **{"technique/ema/use": True, "technique/weight_average/use": True})
