"""Shapes: B batch, L length, C classes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from deepmine_auto.tagging import IGNORED
from deepmine_auto.testing.technique import CLASSES, TechniquePromises, Trial
from deepmine_plugins.techniques.focal_loss import FocalLoss


class TestFocalLoss(TechniquePromises):
    technique = FocalLoss


def focal(outputs, targets, gamma):
    return Trial(FocalLoss(gamma=gamma)).applied.on_loss(torch.tensor(math.nan), outputs, targets)


def by_hand(outputs_NC, targets_N, gamma):
    """The mean of -(1 - p) ** gamma * log p, written as a loop."""
    terms = []
    for logits, target in zip(outputs_NC.tolist(), targets_N.tolist(), strict=True):
        p = math.exp(logits[target]) / sum(map(math.exp, logits))
        terms.append(-((1 - p) ** gamma) * math.log(p))
    return sum(terms) / len(terms)


@given(gamma=st.floats(0.5, 5.0), rows=st.integers(1, 6), seed=st.integers(0, 99))
def test_it_equals_the_formula_of_the_paper_written_as_a_loop(gamma, rows, seed):
    generator = torch.Generator().manual_seed(seed)
    outputs_BC = torch.randn(rows, CLASSES, generator=generator).double()
    targets_B = torch.randint(CLASSES, (rows,), generator=generator)
    assert focal(outputs_BC, targets_B, gamma).item() == pytest.approx(by_hand(outputs_BC, targets_B, gamma))


def test_with_gamma_0_it_is_the_cross_entropy():
    outputs_BC, targets_B = torch.randn(5, CLASSES).double(), torch.tensor([0, 1, 2, 1, 0])
    torch.testing.assert_close(focal(outputs_BC, targets_B, 0.0), cross_entropy(outputs_BC, targets_B))


@given(gamma=st.floats(0.5, 5.0), seed=st.integers(0, 99), spare=st.integers(0, 3))
def test_of_tokens_those_asked_count_and_targets_may_be_longer(gamma, seed, spare):
    generator = torch.Generator().manual_seed(seed)
    outputs_BLC = torch.randn(3, 4, CLASSES, generator=generator).double()
    targets_BL = torch.randint(CLASSES, (3, 4 + spare), generator=generator)
    targets_BL[0, 1:] = targets_BL[2, :2] = targets_BL[:, 4:] = IGNORED
    asked_BL = targets_BL[:, :4] != IGNORED
    expected = by_hand(outputs_BLC[asked_BL], targets_BL[:, :4][asked_BL], gamma)
    assert focal(outputs_BLC, targets_BL, gamma).item() == pytest.approx(expected)


def test_a_batch_that_asks_nothing_has_no_loss():
    outputs_BLC = torch.randn(2, 3, CLASSES, requires_grad=True)
    loss = focal(outputs_BLC, torch.full((2, 3), IGNORED), 0.5)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(outputs_BLC.grad, torch.zeros(2, 3, CLASSES))


def test_gradients_stay_finite_where_the_model_is_certain():
    outputs_BC = torch.tensor([[99.0, 0.0, 0.0], [0.0, 99.0, 0.0], [0.0, 0.0, 0.1]], requires_grad=True)
    focal(outputs_BC, torch.tensor([0, 0, 2]), 0.5).backward()
    assert outputs_BC.grad.isfinite().all()
    assert torch.equal(outputs_BC.grad[0], torch.zeros(3))


def test_what_is_easy_weighs_less_than_what_is_hard():
    outputs_BC = torch.tensor([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0]], requires_grad=True)
    focal(outputs_BC, torch.tensor([0, 0]), 2.0).backward()
    easy, hard = outputs_BC.grad.norm(dim=1).tolist()
    plain = outputs_BC.detach().requires_grad_()
    cross_entropy(plain, torch.tensor([0, 0])).backward()
    easy_before, hard_before = plain.grad.norm(dim=1).tolist()
    assert easy / hard < 0.1 * easy_before / hard_before


@pytest.mark.parametrize("outputs", [torch.zeros(4), torch.zeros(4, 1)])
def test_where_targets_are_no_classes_the_loss_stays(outputs):
    loss, targets_B = torch.tensor(0.7), torch.tensor([0.0, 1.0, -2.5, 3.5])
    assert Trial(FocalLoss()).applied.on_loss(loss, outputs, targets_B) is loss


def test_where_an_output_is_one_number_the_loss_stays():
    loss = torch.tensor(0.7)
    assert Trial(FocalLoss()).applied.on_loss(loss, torch.zeros(4), torch.tensor([0, 1, 2, 5])) is loss
