"""Every matrix is moved by a share of its own norm, and the gradients are those here and there."""

import pytest
import torch
from torch.func import functional_call

from deepmine_auto.testing.technique import (
    STEPS,
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
from deepmine_plugins.techniques.awp import Awp

MATRICES = {"backbone.table.weight", "head.to_classes.weight"}
"""The weights of the model that are trained and are no vectors."""


class TestAwp(TechniquePromises):
    technique = Awp


def stepped(trial):
    """Gradients in the trial's model: first those of the loss, then with what the technique adds."""
    trial.model.zero_grad()
    step = OneStep(trial, batch_of(0))
    step.backward(step.loss(step.outputs()))
    before = copied(gradients(trial.model))
    trial.applied.after_backward(step)
    return before, gradients(trial.model)


def test_the_gradients_are_those_here_and_those_with_every_matrix_moved():
    trial = Trial(Awp(gamma=0.05, start=0.0))
    trial.model.double()
    batch, weights = batch_of(0), dict(trial.model.named_parameters())

    def slope(at):
        outputs_BC = functional_call(trial.model, at, (batch.tokens_BL, batch.keep_BL)).out
        trained = {name: each for name, each in at.items() if each.requires_grad}
        found = torch.autograd.grad(loss_of(outputs_BC, batch.targets), list(trained.values()))
        return dict(zip(trained, found, strict=True))

    here, moved = slope(weights), dict(weights)
    for name in MATRICES:
        length = 0.05 * (weights[name].square().sum() / here[name].square().sum()).sqrt()
        moved[name] = weights[name] + length.detach() * here[name]
    there = slope(moved)
    ours = stepped(trial)[1]
    torch.testing.assert_close(ours, {name: here[name] + there[name] for name in here}, rtol=1e-9, atol=1e-12)


def test_matrices_move_by_their_share_and_nothing_else_moves():
    trial, seen = Trial(Awp(gamma=0.01, start=0.0)), []
    trial.model.register_forward_pre_hook(lambda model, _: seen.append(copied(model.state_dict())))
    stepped(trial)
    here, there = seen
    moved = {name: ((there[name] - here[name]).norm() / here[name].norm()).item() for name in MATRICES}
    assert moved == pytest.approx(dict.fromkeys(MATRICES, 0.01), rel=1e-3)
    assert {name for name in here if not torch.equal(here[name], there[name])} == MATRICES
    assert same_weights(trial.model, Trial(Awp()).model)


def test_it_begins_once_its_share_of_the_training_is_done():
    trial, begun = Trial(Awp(start=0.5)), []
    for _ in range(STEPS):
        begun.append(not same_tensors(*stepped(trial)))
        trial.applied.after_step(trial.model)
    assert begun == [False] * (STEPS // 2) + [True] * (STEPS // 2)


def test_the_checkpoint_holds_the_number_of_steps():
    trial, again = Trial(Awp(start=0.5)), Trial(Awp(start=0.5))
    trial.train(range(STEPS // 2))
    again.applied.load_state_dict(copied(trial.applied.state_dict()))
    assert not same_tensors(*stepped(again))


def test_a_matrix_without_a_gradient_stays_where_it_is():
    trial, seen = Trial(Awp(start=0.0)), []
    trial.model.register_parameter("idle", torch.nn.Parameter(torch.ones(2, 2)))
    trial.model.register_forward_pre_hook(lambda model, _: seen.append(copied(model.state_dict())))
    stepped(trial)
    assert torch.equal(seen[1]["idle"], torch.ones(2, 2))
