"""Greedy selection with replacement picks what helps the mean most, and keeps the best set that it went through."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deepmine_auto.ensemble.greedy import greedy


def worth_of(points, goal):
    """The mean of picked numbers is worth more the nearer it is to the goal."""
    return lambda picks: -abs(np.mean([points[each] for each in picks]) - goal)


def test_a_model_may_be_picked_again_to_weigh_more():
    found = greedy(2, worth_of([0.0, 3.0], 1.0), 6)
    assert sorted(found.picks) in ([0, 0, 1], [0, 0, 0, 0, 1, 1])
    assert found.worth == 0


def test_the_best_single_one_is_picked_first():
    assert greedy(3, worth_of([5.0, 1.2, 0.9], 1.0), 4).picks[0] == 2


def test_a_set_that_was_better_than_the_last_is_the_one_that_is_kept():
    found = greedy(2, worth_of([0.0, 2.0], 1.0), 3)
    assert sorted(found.picks) == [0, 1]


def test_of_equal_ones_the_one_that_was_picked_least_comes_next():
    assert greedy(3, lambda _: 1.0, 5).picks == (0, 1, 2, 0, 1)


def test_picks_of_one_alone_are_no_ensemble():
    assert greedy(2, worth_of([1.0, 50.0], 1.0), 4) is None


@given(points=st.lists(st.floats(-5, 5), min_size=2, max_size=5), most=st.integers(2, 7))
def test_what_is_kept_is_worth_what_it_says_and_no_more_than_was_asked(points, most):
    worth = worth_of(points, 0.5)
    found = greedy(len(points), worth, most)
    if found is not None:
        assert found.worth == worth(found.picks)
        assert len({*found.picks}) > 1
        assert len(found.picks) <= most
