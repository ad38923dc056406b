"""How long a worker may be silent is learned from what has been reported."""

import pytest
from fakes import Desk, quick

from deepmine_auto.messages import Beat
from deepmine_auto.study.budget import Budget
from deepmine_auto.study.checkpoints import Standing
from deepmine_auto.study.hanging import LEAST, TIMES, UNKNOWN, patience
from deepmine_plugins.pruners.none import KeepAll


def reported(*seconds):
    """A standing with a report at each of these seconds of training."""
    return Standing(reports=[{"step": at, "seconds": each} for at, each in enumerate(seconds)])


def test_before_the_first_report_of_a_study_nobody_knows_how_long_it_takes():
    assert patience(("trial", 0), {}) == UNKNOWN
    assert patience(("trial", 0), {("trial", 0): Standing()}) == UNKNOWN


def test_a_worker_is_measured_by_its_own_pace():
    standings = {("trial", 0): reported(30.0, 60.0), ("trial", 1): reported(500.0)}
    assert patience(("trial", 0), standings) == TIMES * 30.0


def test_one_that_has_not_reported_is_measured_by_the_slowest():
    standings = {("trial", 0): reported(30.0, 60.0), ("rerun", 0): reported(50.0), ("trial", 1): Standing()}
    assert patience(("trial", 1), standings) == TIMES * 50.0
    assert patience(("trial", 2), standings) == TIMES * 50.0


def test_a_quick_worker_may_be_silent_for_a_while_too():
    assert patience(("trial", 0), {("trial", 0): reported(0.1, 0.2)}) == LEAST


def test_a_worker_that_has_said_nothing_yet_may_read_all_rows_with_a_large_model_first():
    standings = {("trial", 0): reported(0.1, 0.2), ("trial", 1): reported(500.0)}
    assert patience(("trial", 0), standings, spoken=False) == UNKNOWN
    assert patience(("trial", 1), standings, spoken=False) == TIMES * 500.0


def test_a_step_that_was_reported_twice_makes_nobody_faster():
    once, again = reported(30.0, 60.0), reported(30.0, 60.0)
    again.reports.insert(1, {"step": 0, "seconds": 30.0})
    assert patience(("trial", 0), {("trial", 0): again}) == patience(("trial", 0), {("trial", 0): once})


@pytest.fixture
def agenda(tmp_path):
    desk = Desk(tmp_path, pruner=KeepAll())
    return desk.agenda(desk.begin(), Budget(trials=3), slots=2)


def test_what_was_heard_of_lately_does_not_hang(agenda):
    agenda.next()
    assert agenda.hung() == []


def test_what_is_silent_for_too_long_hangs_and_the_reason_says_how_long(agenda):
    first, second = agenda.next(), agenda.next()
    agenda.heard(first.key, next(quick(first, None)))
    agenda.heard_at[first.key] -= LEAST + 5
    ((key, why),) = agenda.hung()
    assert key == first.key != second.key
    assert why == f"no report for {LEAST + 5:.0f} s, where {LEAST:.0f} s are patience enough"


def test_a_worker_hangs_by_its_pace_only_after_it_has_begun_to_speak(agenda):
    first, second = agenda.next(), agenda.next()
    agenda.heard(second.key, next(quick(second, None)))
    agenda.heard(first.key, Beat(1, 9, 1.0))
    agenda.lost(first.key, "lost", "its process ended")
    assert agenda.next().key == first.key
    agenda.heard_at[first.key] -= LEAST + 5
    assert agenda.hung() == [], "the next worker has to begin too"
    agenda.heard(first.key, Beat(1, 9, 1.0))
    agenda.heard_at[first.key] -= LEAST + 5
    assert [key for key, _ in agenda.hung()] == [first.key]


def test_any_sign_of_life_counts(agenda):
    first = agenda.next()
    agenda.heard_at[first.key] -= UNKNOWN + 5
    assert [key for key, _ in agenda.hung()] == [first.key]
    agenda.heard(first.key, Beat(1, 9, 1.0))
    assert agenda.hung() == []


def test_who_judges_does_not_hang_and_is_not_stopped_by_the_clock(agenda):
    first = agenda.next()
    agenda.heard_at[first.key] -= UNKNOWN + 5
    heard_at = agenda.heard_at[first.key]
    agenda.budget = Budget(seconds=0.0)
    assert agenda.heard(first.key, Beat(1, 9, 1.0, judges=True))
    assert agenda.hung() == []
    assert agenda.heard_at[first.key] == heard_at, "whoever looks for the overdue may end it, once that takes long"


def test_what_hung_goes_on_under_the_same_number_from_its_checkpoint(agenda):
    first = agenda.next()
    for message in list(quick(first, None))[:2]:
        agenda.heard(first.key, message)
    agenda.lost(first.key, "hung", "no report")
    again = agenda.next()
    assert (again.key, again.attempt) == (first.key, 2)
    assert again.checkpoints == ("checkpoints/trial-00000/attempt-1/step-0000003",)
    assert [row["because"] for row in agenda.ledger.history.of(*first.key).attempts] == ["begun", "hung"]
