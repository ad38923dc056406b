"""The baseline that is fitted beside a search."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from deepmine_auto import searching
from deepmine_auto.study.baseline import GUESSED_SECONDS, Baseline


def test_until_it_is_fitted_its_score_is_unknown_and_its_time_is_guessed() -> None:
    future: Future[tuple[float, float]] = Future()
    baseline = Baseline(lambda: future)
    assert (baseline.value(), baseline.seconds()) == (None, GUESSED_SECONDS)
    baseline.begin()
    assert (baseline.value(), baseline.seconds()) == (None, GUESSED_SECONDS)
    future.set_result((0.8, 1.5))
    assert (baseline.value(), baseline.seconds()) == (0.8, 1.5)


def test_it_is_fitted_once_however_often_it_is_begun() -> None:
    fits: list[Future[tuple[float, float]]] = []
    baseline = Baseline(lambda: fits.append(Future()) or fits[-1])  # type: ignore[func-returns-value]
    assert not fits, "the first trial would wait for its imports"
    baseline.begin()
    baseline.begin()
    assert len(fits) == 1


def test_a_baseline_that_fails_is_told_during_the_search_and_not_after_it() -> None:
    future: Future[tuple[float, float]] = Future()
    future.set_exception(ValueError("no words"))
    baseline = Baseline(lambda: future)
    baseline.begin()
    with pytest.raises(ValueError, match=r"no words"):
        baseline.seconds()
    with pytest.raises(ValueError, match=r"no words"):
        baseline.value()


def test_a_search_begins_it_with_its_first_message() -> None:
    begun: list[Future[tuple[float, float]]] = []
    baseline = Baseline(lambda: begun.append(Future()) or begun[-1])  # type: ignore[func-returns-value]
    searching._tick(baseline, searching.Watcher())
    assert len(begun) == 1
