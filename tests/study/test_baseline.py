"""The baseline that is fitted beside a search."""

from __future__ import annotations

from concurrent.futures import Future
from threading import Event
from threading import enumerate as enumerate_threads

import pytest

from deepmine_auto import searching
from deepmine_auto.data.rows import Rows
from deepmine_auto.host import the_host
from deepmine_auto.study import baseline as baselines
from deepmine_auto.study.baseline import GUESSED_SECONDS, MOST_ROWS, Baseline, beside, name_of, rows_to_fit
from deepmine_auto.watcher import Watcher


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


def test_while_it_is_fitted_at_least_as_much_time_is_kept_as_it_has_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    baseline = Baseline(Future)
    baseline.begin()
    now[0] += 90.0
    assert baseline.seconds() == 90.0


def test_of_very_many_rows_some_are_fitted_of_every_class_and_its_name_says_so() -> None:
    task = the_host().get("task", "text_classification")()
    train = Rows([f"text {each}" for each in range(60)], ["rare" if each == 7 else "usual" for each in range(60)])
    some = rows_to_fit(task, train, 10)
    assert len(some) == 10
    assert set(some.labels) == {"rare", "usual"}
    assert rows_to_fit(task, train) is train
    assert name_of(task, MOST_ROWS) == "tf-idf"
    assert name_of(task, MOST_ROWS + 1) == "tf-idf of 50,000 rows"


def test_nobody_waits_for_one_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C would: the thread ends with the process."""
    go_on, before = Event(), {*enumerate_threads()}
    monkeypatch.setattr(baselines, "_fitted", lambda *_: go_on.wait())
    beside(None, None).begin()  # type: ignore[arg-type]
    try:
        (thread,) = {*enumerate_threads()} - before
        assert thread.daemon
    finally:
        go_on.set()


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
    searching._tick(baseline, Watcher())
    assert len(begun) == 1
