import math

import pytest
import torch

from deepmine_auto.testing.technique import STEPS, TechniquePromises, Trial, copied, same_tensors
from deepmine_plugins.techniques.checkpoint_soup import CheckpointSoup

WEIGHTS = ("backbone.table.weight", "head.to_classes.weight", "head.to_classes.bias")
SCORES = [0.1, 0.5, 0.3, 0.6, 0.2, 0.6, 0.7, 0.4]


class TestCheckpointSoup(TechniquePromises):
    technique = CheckpointSoup


def soup(**fields):
    """A trial whose evaluations are worth what a test says."""
    trial = Trial(CheckpointSoup(**fields))
    trial.judge = lambda: None
    return trial


def judged(trial, scores, begin=0):
    """The model's weights after each step, and what is judged there."""
    for step, score in enumerate(scores, begin):
        trial.train(range(step, step + 1))
        yield copied(trial.model.state_dict()), trial.weights()
        trial.applied.judged(score)


@pytest.mark.parametrize("ingredients", [2, 3, 5])
def test_after_the_start_it_is_the_mean_with_the_best_before_written_as_a_loop(ingredients):
    states, found = zip(*judged(soup(ingredients=ingredients, start=0.5), SCORES), strict=True)
    for at in range(STEPS):
        latest_first = sorted(range(at), key=lambda each: (SCORES[each], each), reverse=True)
        chosen = [at, *(latest_first[: ingredients - 1] if at >= 4 else [])]
        for name in WEIGHTS:
            mean = torch.stack([states[each][name].double() for each in chosen]).mean(0)
            torch.testing.assert_close(found[at][name].double(), mean, rtol=1e-5, atol=1e-6)


def test_until_the_start_the_models_own_weights_are_judged():
    states, found = zip(*judged(soup(start=0.5), SCORES), strict=True)
    assert [same_tensors(*each) for each in zip(states, found, strict=True)] == [True] * 4 + [False] * 4


def test_what_is_worse_than_all_ingredients_does_not_stay():
    trial = soup(ingredients=2, start=0.5)
    for _ in judged(trial, [0.5, 0.6]):
        pass
    before = copied(trial.applied.state_dict())
    for _ in judged(trial, [0.4, 0.3], 2):
        pass
    after = trial.applied.state_dict()
    assert same_tensors({**after, "counts": before["counts"]}, before)


def test_training_goes_on_as_without_it():
    trial, untouched = soup(), soup()
    untouched.applied.after_step = lambda model: None
    assert trial.train(range(STEPS)) == untouched.train(range(STEPS))


@pytest.mark.parametrize("middle", range(1, STEPS))
def test_restored_after_any_evaluation_it_goes_on_bit_for_bit(middle):
    trial, again = soup(start=0.3), soup(start=0.3)
    for _ in judged(trial, SCORES[:middle]):
        pass
    again.model.load_state_dict(copied(trial.model.state_dict()))
    again.applied.load_state_dict(copied(trial.applied.state_dict()))
    assert same_tensors(again.weights(), trial.weights())
    rest = zip(judged(trial, SCORES[middle:], middle), judged(again, SCORES[middle:], middle), strict=True)
    assert all(same_tensors(one[1], other[1]) for one, other in rest)


def test_the_memory_that_it_will_need_is_there_from_the_beginning():
    trial = soup(ingredients=4)
    before = {name: each.shape for name, each in trial.applied.state_dict().items()}
    for _ in judged(trial, SCORES):
        pass
    assert {name: each.shape for name, each in trial.applied.state_dict().items()} == before
    assert all(math.isfinite(each) for each in trial.applied.state_dict()["scores"])


def test_frozen_weights_and_buffers_pass_through():
    trial = soup()
    for state, found in judged(trial, SCORES):
        same = {name for name in state if torch.equal(found[name], state[name])}
    assert same == {"backbone.frozen.weight", "backbone.frozen.bias", "backbone.ids"}
    assert not any("frozen" in name for name in trial.applied.state_dict())
