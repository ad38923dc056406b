"""Shapes: N rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmine_auto.testing.technique import TechniquePromises, Trial
from deepmine_auto.training.batching import training_order
from deepmine_plugins.techniques.balanced_sampling import BalancedSampling


class TestBalancedSampling(TechniquePromises):
    technique = BalancedSampling


def odds_of(targets, beta):
    return Trial(BalancedSampling(beta=beta)).applied.odds(np.array(targets))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.sampled_from([0.0, 0.5, 0.9, 0.999]))
def test_a_row_weighs_one_over_the_sum_of_what_each_row_of_its_class_adds(targets, beta):
    added = [sum(beta**before for before in range(targets.count(each))) for each in targets]
    np.testing.assert_allclose(odds_of(targets, beta), 1 / np.array(added))


def test_with_beta_0_rows_are_drawn_alike_and_near_1_classes_are():
    targets = np.repeat([3, 7], [90, 10])
    rows, classes = odds_of(targets, 0.0), odds_of(targets, 1 - 1e-7)
    assert (rows == 1.0).all()
    assert classes[:90].sum() == pytest.approx(classes[90:].sum(), rel=1e-4)


@pytest.mark.parametrize(
    "targets", [np.zeros((5, 3), np.int64), np.linspace(0, 1, 5)], ids=["an answer a token", "numbers"]
)
def test_targets_that_are_no_classes_are_left_alone(targets):
    assert odds_of(targets, 0.999) is None


def test_epochs_drawn_by_it_hold_the_classes_in_near_equal_numbers():
    targets_N = np.repeat([0, 1, 2], [800, 150, 50])
    odds_N = odds_of(targets_N, 0.9999)
    epochs = [training_order(np.ones(1000), 32, [0, epoch], odds_N) for epoch in range(20)]
    drawn_C = np.bincount(targets_N[np.concatenate([row for epoch in epochs for row in epoch])])
    np.testing.assert_allclose(drawn_C / drawn_C.sum(), 1 / 3, atol=0.02)
