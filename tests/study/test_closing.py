"""What is kept of a study's time for its end."""

from deepmine_auto.study.closing import FEWEST, VERIFY_SECONDS, closing_seconds
from deepmine_auto.study.evidence import RESAMPLES

PARTS = {"train": 80, "validation": 10, "test": 30}


def test_of_a_few_evaluations_the_scores_are_not_reckoned():
    """Their times would be taken thousands of times."""
    assert closing_seconds(0.0, [(9.0, 9.0)] * (FEWEST - 1), PARTS) == VERIFY_SECONDS + 27.0


def test_before_any_evaluation_the_baseline_and_the_check_are_counted():
    assert closing_seconds(3.0, [], PARTS) == VERIFY_SECONDS + 6.0


def test_the_test_takes_as_much_longer_than_an_evaluation_as_it_has_more_rows():
    assert closing_seconds(0.0, [(4.0, 0.0)] * FEWEST, PARTS) == VERIFY_SECONDS + 12.0


def test_scores_are_counted_for_every_resample_of_both_outputs():
    assert closing_seconds(0.0, [(0.0, 0.01)] * FEWEST, PARTS) == VERIFY_SECONDS + 3 * 2 * RESAMPLES * 0.01


def test_one_slow_evaluation_among_others_decides_nothing():
    assert closing_seconds(0.0, [(1.0, 0.0), (1.0, 0.0), (99.0, 0.0)], PARTS) == VERIFY_SECONDS + 3.0
