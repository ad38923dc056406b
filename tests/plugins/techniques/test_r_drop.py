"""Shapes: B batch, L length, C classes."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from deepmine_auto import Batch
from deepmine_auto.testing.technique import OneStep, TechniquePromises, Trial, batch_of, loss_of
from deepmine_plugins.techniques.r_drop import RDrop, divergence


class TestRDrop(TechniquePromises):
    technique = RDrop


def step_of(again, targets, keep_BL=None):
    """A step whose second pass gives `again`."""

    def loss(outputs):
        return cross_entropy(outputs.flatten(0, -2), targets.flatten())

    return SimpleNamespace(batch=Batch(None, keep_BL, targets), outputs=lambda: again, loss=loss)


def whole(alpha, first, again, targets, keep_BL=None):
    step = step_of(again, targets, keep_BL)
    return step.loss(first) + Trial(RDrop(alpha=alpha)).applied.more_loss(step, first)


def drawn(shape, seed):
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def papers(alpha, first_C, again_C, target):
    """The loss of one example, as the paper writes it."""
    p, q = ([math.exp(each) / sum(map(math.exp, row)) for each in row] for row in (first_C, again_C))
    there = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    back = sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
    return -math.log(p[target]) - math.log(q[target]) + alpha * (there + back) / 2


@given(alpha=st.floats(0.1, 5.0), rows=st.integers(1, 6), classes=st.integers(2, 5), seed=st.integers(0, 99))
def test_the_whole_loss_is_the_papers_written_as_a_loop(alpha, rows, classes, seed):
    first_BC, again_BC = drawn((rows, classes), seed)
    targets_B = torch.arange(rows) % classes
    each = map(papers, [alpha] * rows, first_BC.tolist(), again_BC.tolist(), targets_B.tolist())
    ours = whole(alpha, first_BC, again_BC, targets_B)
    assert ours.item() == pytest.approx(sum(each) / rows, rel=1e-9)


@given(lengths=st.lists(st.integers(1, 4), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_of_outputs_for_each_token_it_is_the_mean_over_real_tokens(lengths, seed):
    keep_BL = torch.arange(4) < torch.tensor(lengths)[:, None]
    first_BLC, again_BLC = drawn((len(lengths), 4, 3), seed)
    targets_BL = torch.zeros(keep_BL.shape, dtype=torch.int64).masked_fill(~keep_BL, -100)
    each = map(papers, [0.7] * sum(lengths), first_BLC[keep_BL].tolist(), again_BLC[keep_BL].tolist(), [0] * 16)
    ours = whole(0.7, first_BLC, again_BLC, targets_BL, keep_BL)
    assert ours.item() == pytest.approx(sum(each) / sum(lengths), rel=1e-9)


def test_what_stands_at_padding_has_no_say():
    keep_BL = torch.tensor([[True, True, False], [True, False, False]])
    first_BLC, again_BLC = drawn((2, 3, 4), 0)
    other_BLC = again_BLC + 9.0 * torch.arange(4) * ~keep_BL[..., None]
    assert torch.equal(divergence(first_BLC, other_BLC, keep_BL), divergence(first_BLC, again_BLC, keep_BL))


def test_both_passes_learn():
    both = [each.requires_grad_() for each in drawn((3, 4), 1)]
    targets_B = torch.tensor([0, 3, 1])
    assert torch.autograd.gradcheck(lambda first, again: whole(2.0, first, again, targets_B), both)


def test_without_dropout_it_is_the_loss_twice():
    trial = Trial(RDrop())
    plain = OneStep(trial, batch_of(0)).outputs()
    assert trial.step(0) == pytest.approx(2 * loss_of(plain, batch_of(0).targets).item())


@pytest.mark.parametrize("targets", [torch.tensor([0.5, -2.0]), torch.tensor([0, 5])])
def test_where_targets_are_no_classes_there_is_no_second_pass(targets):
    assert Trial(RDrop()).applied.more_loss(SimpleNamespace(batch=Batch(None, None, targets)), torch.zeros(2)) is None
