"""Shapes: V vocabulary, E dim of word vectors."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from deepmine_auto.testing.technique import (
    DIM,
    VOCABULARY,
    Classifier,
    OneStep,
    TechniquePromises,
    Trial,
    batch_of,
    copied,
    gradients,
    loss_of,
    same_tensors,
    same_weights,
)
from deepmine_plugins.techniques.fgm import Fgm, unit

TABLE, FIRST = "backbone.table.weight", "head.to_classes.weight"


class TestFgm(TechniquePromises):
    technique = Fgm


class Watched(OneStep):
    """A step that keeps the weights with which each pass was made."""

    def __init__(self, trial, batch):
        super().__init__(trial, batch)
        self.seen = []

    def outputs(self):
        self.seen.append(copied(self.training.model.state_dict()))
        return super().outputs()


def stepped(technique, model=None):
    """A step in float64, after all gradients are there."""
    trial = Trial(technique, (model or Classifier()).double())
    step = Watched(trial, batch_of(0))
    step.backward(step.loss(step.outputs()))
    trial.applied.after_backward(step)
    return step


def loss_with(step, weights):
    """The task's loss with other weights."""
    outputs_BC = functional_call(step.training.model, weights, (step.batch.tokens_BL, step.batch.keep_BL)).out
    return loss_of(outputs_BC, step.batch.targets)


def slope(step, weights):
    """The gradients of the task's loss at other weights, by name; frozen ones have none."""
    trained = {name: each for name, each in weights.items() if each.requires_grad}
    found = torch.autograd.grad(loss_with(step, weights), list(trained.values()), materialize_grads=True)
    return dict(zip(trained, found, strict=True))


def test_the_gradients_are_those_here_and_those_with_the_table_moved():
    step = stepped(Fgm(epsilon=0.7))
    weights = dict(step.training.model.named_parameters())
    here = slope(step, weights)
    way_VE = here[TABLE] / here[TABLE].square().sum().sqrt()
    there = slope(step, {**weights, TABLE: weights[TABLE] + 0.7 * way_VE})
    expected = {name: here[name] + there[name] for name in here}
    torch.testing.assert_close(gradients(step.training.model), expected, rtol=1e-9, atol=1e-12)


def test_the_loss_is_higher_there():
    step = stepped(Fgm(epsilon=0.1))
    here, there = ({**dict(step.training.model.named_parameters()), **each} for each in step.seen)
    assert loss_with(step, there) > loss_with(step, here)


class Padded(Classifier):
    """A model whose padding has a vector like any other, and a say."""

    def __init__(self):
        super().__init__()
        table = self.backbone.table
        self.backbone.table = nn.Embedding.from_pretrained(table.weight.detach() + 1.0, freeze=False)

    def forward(self, tokens_BL, keep_BL):
        return super().forward(tokens_BL, torch.ones_like(keep_BL))


def test_padding_stays_where_it_is():
    step = stepped(Fgm(), Padded())
    here, there = (each[TABLE] for each in step.seen)
    assert (gradients(step.training.model)[TABLE][0] != 0).any()
    assert torch.equal(there[0], here[0])
    torch.testing.assert_close((there - here).norm().item(), 1.0)


def test_where_the_table_is_frozen_the_next_matrix_moves_with_its_first_row():
    model = Classifier()
    model.backbone.table.requires_grad_(False)
    model.head.to_classes = nn.Linear(DIM, VOCABULARY)  # as many rows as a table
    step = stepped(Fgm(), model)
    here, there = step.seen
    assert {name for name in here if not torch.equal(here[name], there[name])} == {FIRST}
    assert (here[FIRST][0] != there[FIRST][0]).any()


def test_a_table_that_is_thawed_later_moves_then():
    model = Classifier()
    model.backbone.table.requires_grad_(False)
    step = stepped(Fgm(), model)
    model.backbone.table.requires_grad_(True)
    step.backward(step.loss(step.outputs()))
    step.training.applied.after_backward(step)
    assert not torch.equal(step.seen[-1][TABLE], step.seen[0][TABLE])


class Unmoved(Classifier):
    """A model that does not look at its words."""

    def forward(self, tokens_BL, keep_BL):
        mixed = super().forward(tokens_BL, keep_BL)
        return mixed._replace(out=mixed.out.detach() + self.head.to_classes.bias)


class Unhurt(Classifier):
    """A model whose words have a gradient, which is zero."""

    def forward(self, tokens_BL, keep_BL):
        mixed = super().forward(tokens_BL, keep_BL)
        return mixed._replace(out=0.0 * mixed.out + self.head.to_classes.bias)


@pytest.mark.parametrize("model", [Unmoved, Unhurt])
def test_words_without_a_gradient_stay_where_they_are(model):
    step = stepped(Fgm(), model())
    assert same_tensors(*step.seen)
    assert all(each.isfinite().all() for each in gradients(step.training.model).values())


@pytest.mark.parametrize("fault", [torch.inf, torch.nan])
def test_a_way_that_is_not_finite_leads_nowhere(fault):
    assert torch.equal(unit(torch.tensor([fault, 1.0])), torch.zeros(2))


def test_a_pass_that_fails_leaves_the_weights_as_they_were():
    trial = Trial(Fgm())
    step = OneStep(trial, batch_of(0))
    step.backward(step.loss(step.outputs()))
    step.outputs = lambda: [][1]
    with pytest.raises(IndexError, match="out of range"):
        trial.applied.after_backward(step)
    assert same_weights(trial.model, Classifier())
