"""Shapes: B batch, L length, D dim, C classes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from deepmine_auto.model.heads import ClassifierHead
from deepmine_auto.testing.technique import CLASSES, TechniquePromises, Trial
from deepmine_plugins.techniques.mixup import Mixup


class TestMixup(TechniquePromises):
    technique = Mixup


def mixing(alpha=0.2):
    return Trial(Mixup(alpha=alpha)).applied


@given(rows=st.integers(1, 6), seed=st.integers(0, 99))
@settings(deadline=None)
def test_it_is_the_cross_entropy_of_mixed_vectors_with_mixed_targets(rows, seed):
    """The paper mixes vectors before the last layer: here written as one target of shares a row."""
    generator = torch.Generator().manual_seed(seed)
    pooled_BD = torch.randn(rows, 8, generator=generator).double()
    targets_B = torch.randint(CLASSES, (rows,), generator=generator)
    to_classes = ClassifierHead(4, CLASSES, 0.0).to_classes.double()
    applied = mixing()
    before = applied.generator.get_state()
    share, others_B = applied._drawn(rows)
    applied.generator.set_state(before)

    mixed_BC = to_classes(share * pooled_BD + (1 - share) * pooled_BD[others_B])
    one_hot_BC = torch.nn.functional.one_hot(targets_B, CLASSES).double()
    expected = cross_entropy(mixed_BC, share * one_hot_BC + (1 - share) * one_hot_BC[others_B])
    found = applied.on_loss(torch.tensor(torch.nan), to_classes(pooled_BD), targets_B)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0])
def test_shares_have_mean_and_spread_of_the_beta_distribution(alpha):
    applied = mixing(alpha)
    shares = torch.tensor([applied._drawn(1)[0] for _ in range(4000)])
    assert shares.mean().item() == pytest.approx(0.5, abs=0.03)
    assert shares.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)


def test_every_row_has_one_partner_and_is_one():
    assert sorted(mixing()._drawn(9)[1].tolist()) == list(range(9))


def test_where_each_token_has_an_answer_nothing_is_changed():
    loss = torch.tensor(0.7)
    assert mixing().on_loss(loss, torch.randn(2, 3, CLASSES), torch.zeros(2, 3, dtype=torch.long)) is loss
