"""Shapes: B batch, L length, D dim, C classes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_texts import assignment, kept
from torch.nn.functional import cross_entropy

from deepmine_auto.host import the_host
from deepmine_auto.model.heads import ClassifierHead
from deepmine_auto.testing.technique import CLASSES, TechniquePromises, Trial
from deepmine_auto.training.loop import Training
from deepmine_auto.training.step import take_step
from deepmine_plugins.techniques.focal_loss import FocalLoss
from deepmine_plugins.techniques.label_smoothing import LabelSmoothing
from deepmine_plugins.techniques.mixup import Mixup


class TestMixup(TechniquePromises):
    technique = Mixup


def mixing(alpha=0.2):
    return Trial(Mixup(alpha=alpha)).applied


def about_to_draw(applied, rows):
    """What will be drawn."""
    before = applied.generator.get_state()
    drawn = applied._drawn(rows)
    applied.generator.set_state(before)
    return drawn


class Asked:
    """A step of which mixup asks nothing but losses, which others may change."""

    def __init__(self, targets_B, on_loss=lambda loss, outputs, targets: loss):
        self.targets_B, self.on_loss = targets_B, on_loss

    def loss(self, outputs_BC):
        return self.loss_with(outputs_BC, self.targets_B)

    def loss_with(self, outputs_BC, targets_B):
        return self.on_loss(cross_entropy(outputs_BC, targets_B), outputs_BC, targets_B)


@given(rows=st.integers(1, 6), seed=st.integers(0, 99))
@settings(deadline=None)
def test_it_is_the_cross_entropy_of_mixed_vectors_with_mixed_targets(rows, seed):
    """The paper mixes vectors before the last layer: here written as one target of shares a row."""
    generator = torch.Generator().manual_seed(seed)
    pooled_BD = torch.randn(rows, 8, generator=generator).double()
    targets_B = torch.randint(CLASSES, (rows,), generator=generator)
    to_classes = ClassifierHead(4, CLASSES, 0.0).to_classes.double()
    applied = mixing()
    share, others_B = about_to_draw(applied, rows)

    mixed_BC = to_classes(share * pooled_BD + (1 - share) * pooled_BD[others_B])
    one_hot_BC = torch.nn.functional.one_hot(targets_B, CLASSES).double()
    expected = cross_entropy(mixed_BC, share * one_hot_BC + (1 - share) * one_hot_BC[others_B])
    step, outputs_BC = Asked(targets_B), to_classes(pooled_BD)
    torch.testing.assert_close(step.loss(outputs_BC) + applied.more_loss(step, outputs_BC), expected)


OTHERS = {"label_smoothing": LabelSmoothing(smoothing=0.2), "focal_loss": FocalLoss(gamma=2.0)}


@pytest.mark.parametrize("other", OTHERS)
def test_the_loss_of_mixed_outputs_is_what_other_techniques_make_of_it(other):
    applied, targets_B = mixing(), torch.tensor([0, 1, 2, 1, 0])
    step = Asked(targets_B, Trial(OTHERS[other]).applied.on_loss)
    outputs_BC = torch.randn(5, CLASSES, generator=torch.Generator().manual_seed(0)).double()
    share, others_B = about_to_draw(applied, 5)
    mixed_BC = share * outputs_BC + (1 - share) * outputs_BC[others_B]
    own, partners = (step.loss_with(mixed_BC, each) for each in (targets_B, targets_B[others_B]))
    found = step.loss(outputs_BC) + applied.more_loss(step, outputs_BC)
    torch.testing.assert_close(found, share * own + (1 - share) * partners)


def test_in_a_trial_others_change_the_loss_beside_it(tmp_path):
    folder = kept(tmp_path / "study")

    def first_loss(*names):
        params = {f"technique/{each}/use": True for each in ("mixup", *names)}
        training = Training(assignment(folder, params=params), the_host())
        return take_step(training, *training.draw()).item()

    assert len({first_loss(), *map(first_loss, OTHERS)}) == 3


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0])
def test_shares_have_mean_and_spread_of_the_beta_distribution(alpha):
    applied = mixing(alpha)
    shares = torch.tensor([applied._drawn(1)[0] for _ in range(4000)])
    assert shares.mean().item() == pytest.approx(0.5, abs=0.03)
    assert shares.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)


def test_every_row_has_one_partner_and_is_one():
    assert sorted(mixing()._drawn(9)[1].tolist()) == list(range(9))


def test_where_each_token_has_an_answer_nothing_is_added():
    step = Asked(torch.zeros(2, 3, dtype=torch.long))
    assert mixing().more_loss(step, torch.randn(2, 3, CLASSES)) is None
