"""What the finals show of finalists beside the winner."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from deepmine_auto.study.finals import as_good

scores = st.lists(st.integers(0, 1000).map(lambda each: each / 1000), min_size=3, max_size=3)


def rows(**values):
    """Reruns of trials t1, t2, ... with these values on the splits from 0."""
    made = [(int(trial[1:]), repeat, value) for trial, each in values.items() for repeat, value in enumerate(each)]
    return [
        {"trial": trial, "repeat": repeat, "value": value, "state": "COMPLETE"}
        for trial, repeat, value in made
        if value is not None
    ]


@pytest.mark.parametrize(
    ("others", "found"),
    [
        ([0.89, 0.881, 0.90], []),  # .010, .010 and .012 behind on each split
        ([0.85, 0.92, 0.90], [2]),  # ahead on one of them
        ([0.89, 0.881], [2]),  # .010 and .020: two splits cannot show that
        ([0.89, 0.891 - 0.0005], []),  # .010 and .0105 is not
        ([0.5], [2]),
        ([None, None, None, 0.5], [2]),  # on no split with the winner
        ([], []),
    ],
)
def test_a_finalist_may_be_as_good_unless_the_winner_leads_beyond_chance(others, found):
    assert as_good(1, rows(t1=[0.90, 0.901 if len(others) == 2 else 0.891, 0.912], t2=others), "maximize") == found


def test_the_splits_of_both_alone_count_and_what_failed_does_not():
    reruns = rows(t1=[0.9, 0.9, 0.9], t3=[0.8, None, 0.85], t2=[0.9, 0.9, 0.8])
    assert as_good(1, reruns, "maximize") == [2, 3]
    failed = [{**each, "state": "FAILED"} if each["trial"] == 2 else each for each in reruns]
    assert as_good(1, failed, "maximize") == [3]


@given(scores, scores)
def test_the_test_is_students_for_pairs(own, other):
    """scipy is the oracle; less is better for losses."""
    assume(len({round(a - b, 6) for a, b in zip(own, other, strict=True)}) > 1)
    chance = ttest_rel(own, other, alternative="greater").pvalue
    assume(abs(chance - 0.05) > 1e-3)
    assert as_good(1, rows(t1=own, t2=other), "maximize") == [2] * bool(chance > 0.05)
    losses = [[-each for each in values] for values in (own, other)]
    assert as_good(1, rows(t1=losses[0], t2=losses[1]), "minimize") == [2] * bool(chance > 0.05)
