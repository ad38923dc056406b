import pytest
import torch

from deepmine_auto.testing.technique import STEPS, TechniquePromises, Trial, copied, same_tensors
from deepmine_plugins.techniques.weight_average import WeightAverage

WEIGHTS = ("backbone.table.weight", "head.to_classes.weight", "head.to_classes.bias")


class TestWeightAverage(TechniquePromises):
    technique = WeightAverage


def steps_of(trial):
    """The model's weights after each step, and what would be judged there."""
    for step in range(STEPS):
        trial.train(range(step, step + 1))
        yield copied(trial.model.state_dict()), trial.weights()


@pytest.mark.parametrize(("start", "first"), [(0.5, 4), (0.7, 5), (0.9, 7)])
def test_from_the_start_on_it_is_the_mean_of_the_weights_after_each_step(start, first):
    states, judged = zip(*steps_of(Trial(WeightAverage(start=start))), strict=True)
    for step in range(first, STEPS):
        for name in WEIGHTS:
            mean = torch.stack([each[name].double() for each in states[first : step + 1]]).mean(0)
            torch.testing.assert_close(judged[step][name].double(), mean, rtol=1e-5, atol=1e-6)


def test_before_the_start_the_models_own_weights_are_judged():
    states, judged = zip(*steps_of(Trial(WeightAverage(start=0.5))), strict=True)
    same = [same_tensors(*each) for each in zip(states, judged, strict=True)]
    assert same == [True] * 5 + [False] * 3, "the first mean is of one step"


def test_training_goes_on_as_without_it():
    trial, untouched = Trial(WeightAverage()), Trial(WeightAverage())
    untouched.applied.after_step = lambda model: None
    assert trial.train(range(STEPS)) == untouched.train(range(STEPS))


@pytest.mark.parametrize("middle", [2, 6])
def test_restored_before_or_after_the_start_the_mean_goes_on_bit_for_bit(middle):
    trial, again = Trial(WeightAverage(start=0.5)), Trial(WeightAverage(start=0.5))
    trial.train(range(middle))
    again.model.load_state_dict(copied(trial.model.state_dict()))
    again.applied.load_state_dict(copied(trial.applied.state_dict()))
    trial.train(range(middle, STEPS))
    again.train(range(middle, STEPS))
    assert same_tensors(again.weights(), trial.weights())


def test_frozen_weights_and_buffers_pass_through():
    trial = Trial(WeightAverage())
    trial.train(range(STEPS))
    judged, state = trial.weights(), trial.model.state_dict()
    same = {name for name in state if torch.equal(judged[name], state[name])}
    assert same == {"backbone.frozen.weight", "backbone.frozen.bias", "backbone.ids"}
