"""What a ledger remembers is what the rows say, and what a new one reads from them."""

import pytest
from fakes import Desk, quick

from deepmine_auto.messages import Ended, Saved, attempt_folder
from deepmine_auto.study.budget import Budget
from deepmine_auto.study.causes import AGAIN
from deepmine_auto.study.history import History


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def said(history):
    """All that a history says."""
    trials = {number: (each.state, each.values, each.user_attrs) for number, each in history.trials.items()}
    standing = {key: (each.attempts, each.reports, each.stopped) for key, each in history.standing.items()}
    told = history.event, history.opened, history.search_ended, history.failures_told
    return trials, standing, history.judged, history.reports, history.seq, told


def without_study(history):
    """The same, where rows that were read say of which study they are."""
    trials, standing, *others = said(history)
    drop = {
        key: tuple([{k: v for k, v in row.items() if k != "study_id"} for row in rows] for rows in each[:2]) + each[2:]
        for key, each in standing.items()
    }
    return trials, drop, *others


def test_what_was_kept_up_equals_what_is_read_anew(desk):
    study = desk.begin()
    agenda = desk.work(study, Budget(trials=5))
    agenda.ledger.event("search ended", "so it is said", 4)
    agenda.ledger.event("test opened", "once")
    assert without_study(agenda.ledger.history) == without_study(History(desk.store, study))


def test_what_still_runs_is_unfinished_and_reruns_are_too(desk):
    study = desk.begin()
    agenda = desk.agenda(study, Budget(trials=1))
    first = agenda.next()
    assert agenda.ledger.history.unfinished() == [first.key]
    for message in quick(first, None):
        agenda.heard(first.key, message)
    rerun = agenda.next()
    assert rerun.kind == "rerun"
    assert History(desk.store, study).unfinished() == [rerun.key]


def test_the_newest_checkpoint_is_first_whether_it_was_reported_or_saved(desk):
    study = desk.begin()
    agenda = desk.agenda(study)
    first = agenda.next()
    for message in list(quick(first, None))[:2]:
        agenda.heard(first.key, message)
    saved = f"{attempt_folder(*first.key, 1)}/step-0000005"
    agenda.heard(first.key, Saved(5, saved))
    wanted = (saved, f"{attempt_folder(*first.key, 1)}/step-0000003")
    assert agenda.ledger.history.of(*first.key).checkpoints() == wanted
    assert History(desk.store, study).of(*first.key).checkpoints() == wanted


def test_of_what_is_saved_between_two_reports_the_last_is_kept(desk):
    """A part of a training without reports may take hours, in which nothing ends."""
    agenda = desk.agenda(desk.begin())
    first = agenda.next()
    places = [f"{attempt_folder(*first.key, 1)}/step-{step:07d}" for step in (1, 2, 3)]
    for step, place in enumerate(places, 1):
        (desk.folder / "study" / place).mkdir(parents=True)
        assert agenda.heard(first.key, Saved(step, place))
    there = [(desk.folder / "study" / place).is_dir() for place in places]
    assert there == [False, False, True]


@pytest.mark.parametrize(("because", "times"), [("lost", 4), ("hung", 4), ("memory", 16), ("preempted", 50)])
def test_a_trial_is_handed_out_again_as_often_as_its_cause_allows(desk, because, times):
    history = desk.ledger(desk.begin()).history
    attempts = history.of("trial", 0).attempts
    for _ in range(times):
        assert history.may_try_again(("trial", 0), because)
        attempts.append({"because": because})
    assert history.may_try_again(("trial", 0), because) == (because == "preempted")


def test_workers_that_are_lost_and_that_hang_are_counted_together(desk):
    history = desk.ledger(desk.begin()).history
    history.of("trial", 0).attempts += [{"because": each} for each in ("begun", "lost", "hung", "lost", "hung")]
    assert not history.may_try_again(("trial", 0), "lost")
    assert history.may_try_again(("trial", 0), "memory")
    assert AGAIN.keys() == {"lost", "hung", "preempted", "memory"}


def test_the_best_metrics_are_those_of_the_best_report(desk):
    study = desk.begin()
    agenda = desk.agenda(study)
    first = agenda.next()
    *reports, _ = quick(first, None)
    for each in reports:
        agenda.heard(first.key, each)
    best = max(reports, key=lambda each: each.value)
    assert agenda.ledger.history.metrics_at_best(0) == {"f": best.value}
    assert agenda.ledger.history.best_values() == {0: best.value}
    assert agenda.ledger.history.metrics_at_best(9) == {}


def test_a_trial_without_a_report_has_no_best_value(desk):
    ledger = desk.ledger(desk.begin())
    assignment = ledger.ask()
    ledger.end(assignment.key, Ended("memory"))
    assert ledger.history.best_values() == {}
