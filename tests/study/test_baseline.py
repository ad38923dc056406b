"""The baseline that is fitted beside a search."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from deepmine_auto.study.baseline import GUESSED_SECONDS, Baseline


def test_until_it_is_fitted_its_score_is_unknown_and_its_time_is_guessed() -> None:
    future: Future[tuple[float, float]] = Future()
    assert (Baseline(future).value(), Baseline(future).seconds()) == (None, GUESSED_SECONDS)
    future.set_result((0.8, 1.5))
    assert (Baseline(future).value(), Baseline(future).seconds()) == (0.8, 1.5)


def test_a_baseline_that_fails_is_told_during_the_search_and_not_after_it() -> None:
    future: Future[tuple[float, float]] = Future()
    future.set_exception(ValueError("no words"))
    with pytest.raises(ValueError, match=r"no words"):
        Baseline(future).seconds()
    with pytest.raises(ValueError, match=r"no words"):
        Baseline(future).value()
