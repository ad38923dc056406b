"""Shapes: B batch, L length, C classes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from deepmine_auto.tagging import IGNORED
from deepmine_auto.testing.technique import CLASSES, TechniquePromises, Trial
from deepmine_plugins.techniques.label_smoothing import LabelSmoothing


class TestLabelSmoothing(TechniquePromises):
    technique = LabelSmoothing


@settings(deadline=None)
@given(smoothing=st.floats(0.02, 0.2), rows=st.integers(1, 6), seed=st.integers(0, 99))
def test_it_equals_the_smoothing_of_torch(smoothing, rows, seed):
    generator = torch.Generator().manual_seed(seed)
    outputs_BC = torch.randn(rows, CLASSES, generator=generator).double()
    targets_B = torch.randint(CLASSES, (rows,), generator=generator)
    applied = Trial(LabelSmoothing(smoothing=smoothing)).applied
    ours = applied.on_loss(cross_entropy(outputs_BC, targets_B), outputs_BC, targets_B)
    torch.testing.assert_close(ours, cross_entropy(outputs_BC, targets_B, label_smoothing=smoothing))


def smoothed(smoothing, loss, outputs, targets):
    return Trial(LabelSmoothing(smoothing=smoothing)).applied.on_loss(loss, outputs, targets)


@given(smoothing=st.floats(0.02, 0.2), seed=st.integers(0, 99), spare=st.integers(0, 3))
def test_of_tokens_those_asked_are_smoothed_and_targets_may_be_longer(smoothing, seed, spare):
    generator = torch.Generator().manual_seed(seed)
    outputs_BLC = torch.randn(3, 4, CLASSES, generator=generator).double()
    targets_BL = torch.randint(CLASSES, (3, 4 + spare), generator=generator)
    targets_BL[0, 1:] = targets_BL[2, :2] = targets_BL[:, 4:] = IGNORED
    asked_BL = targets_BL[:, :4] != IGNORED
    asked = outputs_BLC[asked_BL], targets_BL[:, :4][asked_BL]
    expected = cross_entropy(*asked, label_smoothing=smoothing)
    torch.testing.assert_close(smoothed(smoothing, cross_entropy(*asked), outputs_BLC, targets_BL), expected)


def test_a_batch_that_asks_nothing_has_no_loss():
    outputs_BLC = torch.randn(2, 3, CLASSES, requires_grad=True)
    loss = smoothed(0.1, torch.tensor(0.0), outputs_BLC, torch.full((2, 3), IGNORED))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(outputs_BLC.grad, torch.zeros(2, 3, CLASSES))


@pytest.mark.parametrize("outputs", [torch.zeros(4), torch.zeros(4, 1)])
def test_where_targets_are_no_classes_the_loss_stays(outputs):
    loss = torch.tensor(0.7)
    assert smoothed(0.1, loss, outputs, torch.tensor([0.0, 1.0, -2.5, 3.5])) is loss


def test_where_an_output_is_one_number_the_loss_stays():
    loss = torch.tensor(0.7)
    assert smoothed(0.1, loss, torch.zeros(4), torch.tensor([0, 1, 2, 5])) is loss
