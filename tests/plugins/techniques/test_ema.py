import torch
from torch import nn

from deepmine_auto import TrainingFacts
from deepmine_auto.testing.technique import STEPS, TechniquePromises, Trial, Words, copied
from deepmine_plugins.techniques.ema import Ema


class TestEma(TechniquePromises):
    technique = Ema


def test_it_follows_the_average_written_as_a_loop():
    trial = Trial(Ema(decay=0.3))  # reached in the third step, so that both halves of the rule are seen
    expected = trial.model.head.to_classes.weight.detach().double()
    for step in range(STEPS):
        trial.train(range(step, step + 1))
        decay = min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * trial.model.head.to_classes.weight.detach().double()
    ours = trial.applied.evaluated(trial.model)["head.to_classes.weight"]
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-6)


def test_training_goes_on_as_without_it():
    trial, untouched = Trial(Ema()), Trial(Ema())
    untouched.applied.after_step = lambda model: None
    assert trial.train(range(STEPS)) == untouched.train(range(STEPS))


def test_frozen_weights_and_buffers_pass_through():
    trial = Trial(Ema())
    trial.train(range(STEPS))
    judged, state = trial.applied.evaluated(trial.model), trial.model.state_dict()
    same = {name for name in state if torch.equal(judged[name], state[name])}
    assert same == {"backbone.frozen.weight", "backbone.frozen.bias", "backbone.ids"}
    assert not any("frozen" in name for name in trial.applied.state_dict())


def test_the_checkpoint_holds_the_number_of_steps():
    trial, again = Trial(Ema()), Trial(Ema())
    trial.train(range(3))
    again.applied.load_state_dict(copied(trial.applied.state_dict()))
    assert again.applied.state_dict()["steps"].item() == 3


def test_a_tied_weight_is_averaged_under_both_its_names():
    model = nn.ModuleDict({"table": nn.Embedding(5, 4), "to_words": nn.Linear(4, 5, bias=False)})
    model["to_words"].weight = model["table"].weight
    applied = Ema().build(TrainingFacts(model, Words(), STEPS, torch.Generator()))
    with torch.no_grad():
        model["table"].weight += 1.0
    applied.after_step(model)
    judged = applied.evaluated(model)
    assert torch.equal(judged["table.weight"], judged["to_words.weight"])
    assert not torch.equal(judged["to_words.weight"], model["to_words"].weight)
