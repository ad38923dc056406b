"""The finals and the end of a search, with a clock that the test turns."""

import math
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from fakes import SPACE, Desk, ending, quick, training_is
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from deepmine_auto.errors import BadInput
from deepmine_auto.executors import inline
from deepmine_auto.messages import BEFORE_TASK, Beat, Ended, Reported, Saved, attempt_folder
from deepmine_auto.storage import tables
from deepmine_auto.study.agenda import SECONDS_BETWEEN_NOTES
from deepmine_auto.study.budget import FINALS_SHARE, FIRST_SHARE, SLACK, Budget, most_reserved, reserve, seconds_of
from deepmine_auto.study.checkpoints import Standing, being_written, checkpoints_to_keep, sweep
from deepmine_auto.study.finals import Rerun, Winner, finalists, in_order, may_win, winner
from deepmine_auto.study.ledger import Ledger
from deepmine_plugins.pruners.none import KeepAll

CLOSING = 5.0


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path, pruner=KeepAll())


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the study has taken, as the test says."""
    now = [0.0]
    monkeypatch.setattr(Ledger, "spent", property(lambda self: now[0]))
    return now


def timed(clock, seconds=9.0):
    """A training of four reports that takes so many seconds."""

    def messages(assignment, host):
        *reports, end = quick(assignment, host)
        for at, each in enumerate(reports, 1):
            clock[0] += seconds / len(reports)
            yield replace(each, seconds=seconds * at / len(reports))
        yield end

    return messages


# -- the order of the finals -------------------------------------------------------------------------------------------


def test_the_reruns_that_matter_most_come_first():
    assert in_order([7, 3, 5]) == [(7, 0), (3, 0), (7, 1), (3, 1), (7, 2), (3, 2), (5, 0), (5, 1), (5, 2)]
    assert in_order([7]) == [(7, 0), (7, 1), (7, 2)]
    assert in_order([]) == []


def test_all_reruns_follow_the_search_in_their_order(desk):
    study = desk.begin()
    agenda = desk.work(study, Budget(trials=5))
    order = [Rerun(row["trial"], row["repeat"]) for row in desk.store.rows(tables.reruns, study.id)]
    assert order == in_order(agenda.finalists())
    assert agenda.done


def test_no_rerun_begins_while_a_trial_runs(desk):
    agenda = desk.agenda(desk.begin(), Budget(trials=2), slots=2)
    first, second = agenda.next(), agenda.next()
    for message in quick(first, None):
        agenda.heard(first.key, message)
    assert agenda.next() is None
    assert not agenda.done
    for message in quick(second, None):
        agenda.heard(second.key, message)
    assert agenda.next().kind == "rerun"


def test_each_repeat_has_a_split_and_a_seed_of_its_own_shared_by_the_finalists(desk):
    agenda = desk.agenda(desk.begin(), Budget(trials=3), slots=9)
    with training_is(quick):
        begun = [agenda.next() for _ in range(3)]
        for each in begun:
            for message in quick(each, None):
                agenda.heard(each.key, message)
    reruns = [agenda.next() for _ in range(9)]
    assert {each.split for each in reruns} == {"rerun-0", "rerun-1", "rerun-2"}
    assert len({(each.split, each.seed) for each in reruns}) == 3
    assert not {each.seed for each in reruns} & {each.seed for each in begun}


def test_a_budget_that_grows_before_the_finals_searches_on_and_after_them_does_not(desk):
    study = desk.begin()
    desk.work(study, Budget(trials=2))
    agenda = desk.work(study, Budget(trials=9))
    assert len(agenda.ledger.trials) == 2


def test_stop_begins_no_new_trial_and_the_finals_follow(desk):
    study = desk.begin()
    agenda = desk.agenda(study, Budget(trials=9))
    ended = count()

    def messages(assignment, host):
        yield from quick(assignment, host)

    with training_is(messages):
        inline.run(agenda, None, lambda: agenda.stop() if next(ended) == 3 else None)
    assert len(agenda.ledger.trials) == 1
    assert len(agenda.ledger.reruns) == 3


# -- time --------------------------------------------------------------------------------------------------------------


def test_the_search_leaves_time_for_reruns_and_closing(desk, clock):
    study = desk.begin()
    agenda = desk.work(study, Budget(seconds=300.0), timed(clock, 20.0))
    assert len(agenda.ledger.trials) >= 8
    assert clock[0] <= 300 - CLOSING
    assert [Rerun(r["trial"], r["repeat"]) for r in agenda.ledger.reruns.values()][:2] == in_order(agenda.finalists())[
        :2
    ]
    searched = 20.0 * len(agenda.ledger.trials)
    assert 300 - searched >= CLOSING + FINALS_SHARE * 300 - 20.0


def worked_with_refit(desk, clock, seconds):
    """A study of 300 seconds whose trials take 20, and a refit so long: its agenda, and how much time is used."""
    agenda = desk.agenda(desk.begin(), Budget(seconds=300.0))
    agenda.refit_seconds = None if seconds is None else lambda: seconds
    clock[0] = 0.0
    with training_is(timed(clock, 20.0)):
        inline.run(agenda, None, lambda: None)
    return agenda, clock[0]


def test_search_and_reruns_leave_time_for_a_refit(desk, clock):
    agenda, used = worked_with_refit(desk, clock, 60.0)
    assert used <= 300 - CLOSING - 60
    assert len(agenda.ledger.reruns) >= 2
    searched = 20.0 * len(agenda.ledger.trials)
    assert 300 - searched >= CLOSING + 60 + FINALS_SHARE * 300 - 20.0


def test_for_a_refit_that_has_no_such_share_nothing_is_kept(desk, clock):
    _, used = worked_with_refit(desk, clock, 60.1)
    assert used > 300 - CLOSING - 60


def test_the_first_reruns_go_before_a_refit(desk, clock):
    """Without any, the luckiest trial wins."""
    agenda, _ = worked_with_refit(desk, clock, 60.0)
    number = agenda.finalists()[0]
    clock[0] = 300.0 - CLOSING - agenda.expected(number) - 5.0
    assert agenda._fits(number, before_refit=True)
    assert not agenda._fits(number, before_refit=False)


def test_when_time_is_short_the_least_important_reruns_are_given_up(desk, clock):
    study = desk.begin()
    agenda = desk.agenda(study, Budget(seconds=100.0))
    clock[0] = 0.0
    trained = timed(clock, 9.0)
    with training_is(trained):
        inline.run(agenda, None, lambda: None)
    begun = [Rerun(row["trial"], row["repeat"]) for row in agenda.ledger.reruns.values()]
    assert 0 < len(begun) < 9
    assert begun == in_order(agenda.finalists())[: len(begun)]
    assert clock[0] <= 100.0 - CLOSING


def test_without_time_for_any_rerun_the_best_trial_wins(desk, clock):
    study = desk.begin()
    agenda = desk.agenda(study, Budget(seconds=30.0))

    def slow(assignment, host):
        for message in quick(assignment, host):
            clock[0] += 8.0
            yield message

    with training_is(slow):
        inline.run(agenda, None, lambda: None)
    assert not agenda.ledger.reruns
    won = winner(agenda.finalists(), agenda.ledger.reruns.values(), agenda.best_values(), "maximize")
    assert won.rerun is None


def test_at_the_deadline_what_runs_stops_with_its_best_checkpoint(desk, clock):
    study = desk.begin()
    agenda = desk.agenda(study, Budget(seconds=100.0), slots=2)
    running = [agenda.next(), agenda.next()]
    for each in running:
        first, *_ = quick(each, None)
        assert agenda.heard(each.key, first)
    clock[0] = 99.0
    for each in running:
        _, second, *_ = quick(each, None)
        assert not agenda.heard(each.key, second)
    assert agenda.done
    for row in desk.trials(study):
        assert (row.state.name, row.user_attrs["cause"]) == ("PRUNED", "deadline")
        assert row.user_attrs["checkpoint"]
    assert len(agenda.finalists()) == 2, "they compete by their best checkpoint"


def test_what_takes_its_last_step_at_the_deadline_is_complete(desk, clock):
    study = desk.begin()
    agenda = desk.agenda(study, Budget(seconds=100.0))
    running = agenda.next()
    *_, last, end = quick(running, None)
    clock[0] = 99.0
    assert agenda.heard(running.key, last)
    assert not agenda.heard(running.key, end)
    (row,) = desk.trials(study)
    assert (row.state.name, row.user_attrs["cause"]) == ("COMPLETE", "budget")


def in_the_finals(desk):
    """A study of one trial, its agenda and the rerun that has just begun."""
    study = desk.begin()
    agenda = desk.agenda(study, Budget(trials=1, seconds=100.0))
    trial = agenda.next()
    for message in quick(trial, None):
        agenda.heard(trial.key, message)
    return study, agenda, agenda.next()


def test_at_the_deadline_a_rerun_stops_with_its_best_checkpoint_and_counts(desk, clock):
    study, agenda, rerun = in_the_finals(desk)
    first, second, *_ = quick(rerun, None)
    assert agenda.heard(rerun.key, first)
    clock[0] = 99.0
    assert not agenda.heard(rerun.key, second)
    (row,) = desk.store.rows(tables.reruns, study.id)
    best = max((first, second), key=lambda each: each.value)
    assert (row["state"], row["reason"]) == ("COMPLETE", "deadline")
    assert (row["value"], row["checkpoint"]) == (best.value, best.best_checkpoint)
    assert agenda.done


def test_a_rerun_that_takes_its_last_step_at_the_deadline_is_complete(desk, clock):
    study, agenda, rerun = in_the_finals(desk)
    *reports, end = quick(rerun, None)
    for each in reports[:-1]:
        assert agenda.heard(rerun.key, each)
    clock[0] = 99.0
    assert agenda.heard(rerun.key, reports[-1])
    assert not agenda.heard(rerun.key, end)
    assert [row["reason"] for row in desk.store.rows(tables.reruns, study.id)] == ["budget"]


def test_no_time_is_kept_for_reruns_that_were_made(desk, clock):
    study = desk.begin()
    desk.work(study, Budget(trials=3))
    assert desk.agenda(study, Budget(seconds=100.0))._reserve(100.0) == CLOSING


def test_a_trial_adopted_after_the_deadline_stops_at_its_next_report(desk, clock):
    study = desk.begin()
    first = desk.agenda(study, Budget(seconds=100.0)).next()
    clock[0] = 200.0
    agenda = desk.agenda(study, Budget(seconds=100.0))
    assert agenda.next().key == first.key
    assert not agenda.heard(first.key, next(quick(first, None)))
    assert agenda.done


def test_the_time_of_all_sessions_counts(desk):
    study = desk.begin()
    ledger = desk.ledger(study)
    assignment = ledger.ask()
    ledger.begun -= 1000.0
    ledger.report(assignment, next(quick(assignment, None)), out_of_time=False)
    assert 1000.0 <= desk.ledger(study).spent < 1100.0


@pytest.mark.parametrize("message", [Beat(1, 9, 1.0), Saved(1, "trial-0/attempt-1/step-0000001", 1.0)])
def test_the_time_of_a_session_counts_that_ended_before_its_first_report(desk, message):
    """What the last minute of it had, a killed driver could not say."""
    study = desk.begin()
    agenda = desk.agenda(study)
    assignment = agenda.next()
    agenda.ledger.begun -= 1000.0
    agenda.heard(assignment.key, message)
    agenda.ledger.begun -= SECONDS_BETWEEN_NOTES / 2
    agenda.heard(assignment.key, message)
    assert 1000.0 <= desk.ledger(study).spent < 1000.0 + SECONDS_BETWEEN_NOTES / 2


def test_where_nothing_finished_there_is_no_winner(desk):
    agenda = desk.work(desk.begin(), Budget(trials=3), ending("memory", after=0))
    assert agenda.finalists() == []
    assert winner([], [], agenda.best_values(), "maximize") is None
    assert agenda.done


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        ("diverged", r"the causes were diverged \(3\)\. See `deepmine-auto trials study`"),
        (
            "memory",
            r"Every trial ran out of memory, also where .* Search a smaller model, .*; see `deepmine-auto trials",
        ),
    ],
)
def test_where_nothing_finished_the_study_ends_with_a_sentence_and_no_bundle(desk, cause, told):
    from deepmine_auto.concluding import conclude
    from deepmine_auto.errors import NothingLearned

    agenda = desk.work(desk.begin(), Budget(trials=3), ending(cause, after=0))
    with pytest.raises(NothingLearned, match=told):
        conclude(agenda, None, desk.folder / "bundle")
    assert not (desk.folder / "bundle").exists()
    assert not [row for row in desk.store.rows(tables.events, agenda.ledger.study.id) if row["kind"] == "test opened"]


@pytest.mark.parametrize("trials", [1, 2, 7])
@pytest.mark.parametrize("cause", ["budget", "memory", "diverged"])
def test_a_budget_of_trials_is_kept_exactly_whatever_becomes_of_them(desk, trials, cause):
    agenda = desk.work(desk.begin(), Budget(trials=trials), ending(cause, after=1))
    assert len(agenda.ledger.trials) == trials
    assert not agenda.ledger.unfinished()


# -- the winner --------------------------------------------------------------------------------------------------------


def rerun(number, trial, value, state="COMPLETE"):
    """A row of the finals of two trials, in their order: one repeat of each, then the next."""
    return {"number": number, "trial": trial, "repeat": number // 2, "state": state, "value": value}


def test_the_winner_has_the_best_mean_and_not_the_luckiest_rerun():
    rows = [rerun(0, 1, 0.99), rerun(1, 2, 0.80), rerun(2, 1, 0.50), rerun(3, 2, 0.82)]
    assert winner([1, 2], rows, {1: 0.95, 2: 0.9}, "maximize") == Winner(2, 3, (0.80, 0.82))


def test_where_smaller_is_better_the_smallest_mean_wins():
    rows = [rerun(0, 1, 0.1), rerun(1, 2, 0.3), rerun(2, 1, 0.9), rerun(3, 2, 0.2)]
    assert winner([1, 2], rows, {1: 0.1, 2: 0.2}, "minimize") == Winner(2, 3, (0.3, 0.2))


def test_only_finalists_with_as_many_reruns_as_the_others_can_win():
    rows = [rerun(0, 1, 0.7), rerun(1, 2, 0.6), rerun(2, 1, 0.7), rerun(3, 2, 0.6), rerun(4, 3, 0.99)]
    assert winner([1, 2, 3], rows, {}, "maximize").trial == 1


def test_the_first_finalist_does_not_win_unopposed_where_the_time_ends_between_two_reruns():
    rows = [rerun(0, 1, 0.70), rerun(1, 2, 0.75), rerun(2, 1, 0.99)]
    assert winner([1, 2], rows, {}, "maximize") == Winner(2, 1, (0.75,))
    rows[1] = rerun(1, 2, 0.65)
    assert winner([1, 2], rows, {}, "maximize") == Winner(1, 2, (0.70, 0.99))


def test_reruns_that_failed_or_still_run_do_not_count():
    rows = [rerun(0, 1, 0.6), rerun(1, 2, 0.9, "FAIL"), rerun(2, 2, None, "RUNNING")]
    assert winner([1, 2], rows, {}, "maximize") == Winner(1, 0, (0.6,))


def test_means_are_over_the_repeats_that_all_have_where_a_rerun_failed():
    """The split on which the rerun of the first failed is an easy one, which must not help the other."""
    rows = [
        rerun(0, 1, 0.90, "FAIL"),
        rerun(1, 2, 0.95),
        rerun(2, 1, 0.70),
        rerun(3, 2, 0.65),
        rerun(4, 1, 0.80),
        rerun(5, 2, 0.75),
    ]
    assert winner([1, 2], rows, {}, "maximize") == Winner(1, 4, (0.70, 0.80))


def test_where_no_repeat_is_common_to_all_as_many_are_compared_of_each():
    rows = [rerun(0, 1, 0.6), rerun(1, 2, 0.9, "FAIL"), rerun(2, 1, 0.9, "FAIL"), rerun(3, 2, 0.7)]
    assert winner([1, 2], rows, {}, "maximize") == Winner(2, 3, (0.7,))


@pytest.mark.parametrize(
    ("state", "cause", "may"),
    [
        ("COMPLETE", "budget", True),
        ("PRUNED", "deadline", True),
        ("PRUNED", "diverged", False),
        ("PRUNED", "limit", False),
        ("FAIL", "error", False),
        ("RUNNING", "", False),
    ],
)
def test_what_ended_with_weights_that_count_may_win(state, cause, may):
    assert may_win(trial_row(0, TrialState[state], cause)) == may


def test_what_is_over_a_limit_may_not_win_however_it_ended():
    trial = trial_row(0, TrialState.COMPLETE)
    trial.system_attrs = {"constraints:latency_ms<=5": 0.1}
    assert not may_win(trial)


def test_a_pruned_trial_competes_by_its_best_value_and_a_diverged_one_never():
    def trial(number, state, cause="budget"):
        made = create_trial(state=state, value=1.0, user_attrs={"cause": cause})
        made.number = number
        return made

    trials = [
        trial(0, TrialState.PRUNED),
        trial(1, TrialState.COMPLETE),
        trial(2, TrialState.PRUNED, "diverged"),
        trial(3, TrialState.COMPLETE),
        trial(4, TrialState.COMPLETE),
    ]
    best = {0: 0.6, 1: 0.5, 2: 0.99, 3: 0.6}
    assert finalists(trials, best, "maximize") == [3, 0, 1], "of equal ones the complete one is first"
    assert finalists(trials, best, "minimize") == [1, 3, 0]
    assert finalists(trials, {**best, 0: 0.9}, "maximize") == [0, 3, 1]


# -- budgets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("1h30m", 5400), ("300", 300), (" 2.5m ", 150), ("1d", 86400)]
)
def test_a_duration_is_read(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5 m", "5x", "-3", "m", "1m30", "nan", "inf"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(BadInput, match=r"is no duration\. Write 90s, 5m or 1h30m"):
        seconds_of(text)


def test_budgets_in_which_nothing_can_be_learned_are_refused():
    with pytest.raises(BadInput, match=r"A study of 0 trials learns nothing\. Give --trials 1 or more"):
        Budget(trials=0).check()
    with pytest.raises(BadInput, match=r"A time budget of 19 s is too short.*--time-budget 30s or more"):
        Budget(seconds=19).check()
    assert Budget(1, 30).check() == Budget(1, 30)


@given(st.floats(20, 1e5), st.floats(0, 100), st.lists(st.floats(0, 1e4), max_size=9), st.integers(1, 8))
def test_the_reserve_holds_the_closing_and_at_most_its_share_for_reruns(seconds, closing, reruns, slots):
    kept = reserve(seconds, closing, reruns, slots)
    assert closing <= kept <= most_reserved(seconds, closing)
    assert reserve(seconds, closing, [], slots) == closing


@given(st.floats(1.0, 1e4), st.integers(1, 9), st.integers(1, 4), st.floats(20, 1e5))
def test_the_reserve_is_what_whole_reruns_take_and_nothing_where_none_would_end(each, count, slots, seconds):
    kept = reserve(seconds, 0.0, [each] * count, slots)
    rounds = kept / (SLACK * each)
    assert rounds == pytest.approx(round(rounds))
    assert rounds <= math.ceil(count / slots) + 1e-9
    assert kept <= FINALS_SHARE * seconds or rounds <= math.ceil(2 / slots) + 1e-9, "one of each of the first two"
    assert (kept == 0) == (SLACK * each > FIRST_SHARE * seconds)


def test_a_search_goes_on_in_time_that_is_too_short_for_a_rerun(desk, clock):
    agenda = desk.work(desk.begin(), Budget(seconds=300.0), timed(clock, 200.0))
    assert len(agenda.ledger.reruns) == 0
    assert clock[0] >= 300 - CLOSING - 50.0, "the last trial is stopped by the clock, not by the reserve"


def test_a_slow_finalist_is_rerun_in_half_of_the_time(desk, clock):
    agenda = desk.work(desk.begin(), Budget(seconds=300.0), timed(clock, 90.0))
    assert len(agenda.ledger.reruns) == 1, "FINALS_SHARE alone would hold 90 s"
    assert clock[0] <= 300 - CLOSING


# -- which checkpoints stay --------------------------------------------------------------------------------------------


def report(value, path, at=None):
    return {"step": at, "value": value, "checkpoint": at, "best_checkpoint": path}


def trial_row(number, state, cause="budget"):
    made = create_trial(state=state, value=1.0 if state == TrialState.COMPLETE else None, user_attrs={"cause": cause})
    made.number = number
    return made


causes = st.sampled_from(["COMPLETE", "PRUNED", "FAIL", "RUNNING", "diverged"])


@given(st.lists(st.tuples(causes, st.lists(st.floats(0, 1), max_size=4)), max_size=9))
def test_the_checkpoints_that_finals_and_resume_need_are_always_kept(rows):
    trials, standings = {}, {}
    for number, (state, values) in enumerate(rows):
        trials[number] = trial_row(number, TrialState["PRUNED" if state == "diverged" else state], state)
        paths = [f"checkpoints/trial-{number:05d}/attempt-1/step-{at:07d}" for at in range(len(values))]
        best = [paths[max(range(at + 1), key=lambda i: values[i])] for at in range(len(values))]
        standings["trial", number] = Standing(
            [{"saved": None}], [report(*each) for each in zip(values, best, paths, strict=True)]
        )
    keep = checkpoints_to_keep(trials, {}, standings, "maximize")
    best = {n: row["value"] for (_, n), each in standings.items() if (row := each.best("maximize"))}
    for number in finalists(trials.values(), best, "maximize"):
        assert standings["trial", number].best("maximize")["best_checkpoint"] in keep
    for number, trial in trials.items():
        if not trial.state.is_finished():
            assert set(standings["trial", number].checkpoints()[:2]) <= keep
    assert len(keep) <= 3 + 3 * sum(not each.state.is_finished() for each in trials.values())


@pytest.mark.parametrize("kind", ["trial", "rerun"])
def test_of_a_step_that_was_reported_twice_the_later_checkpoint_is_kept(kind):
    """The worker of the second attempt names its own as the best, maybe because it could not read the other."""
    first, again = (f"checkpoints/{kind}-00000/attempt-{each}/step-0000009" for each in (1, 2))
    rows = [{**report(0.9, each, each), "step": 9} for each in (first, again)]
    trials = {0: trial_row(0, TrialState.COMPLETE)} if kind == "trial" else {}
    reruns = {} if kind == "trial" else {0: {"state": "COMPLETE"}}
    standings = {(kind, 0): Standing([{"saved": None}] * 2, rows)}
    assert checkpoints_to_keep(trials, reruns, standings, "maximize") == {again}


def test_a_failed_trial_with_a_high_value_does_not_cost_a_finalist_its_checkpoint():
    trials = {n: trial_row(n, state) for n, state in enumerate([TrialState.FAIL] * 3 + [TrialState.COMPLETE])}
    standings = {
        ("trial", n): Standing([{"saved": None}], [report(0.5 if n == 3 else 0.9, f"best-{n}")]) for n in range(4)
    }
    assert checkpoints_to_keep(trials, {}, standings, "maximize") == {"best-3"}


def test_checkpoints_of_the_finalists_here_are_kept_beside_those_whose_plugins_are_gone():
    trials = {n: trial_row(n, TrialState.COMPLETE) for n in range(5)}
    standings = {("trial", n): Standing([{"saved": None}], [report(1 - n / 10, f"best-{n}")]) for n in range(5)}
    assert checkpoints_to_keep(trials, {}, standings, "maximize") == {"best-0", "best-1", "best-2"}
    kept = checkpoints_to_keep(trials, {}, standings, "maximize", lambda number: number > 0)
    assert kept == {"best-0", "best-1", "best-2", "best-3"}


def worth_less_and_less(assignment, host):
    """A training with one report, whose checkpoint is on the disk: each trial is worse than the one before."""
    path = f"{attempt_folder(*assignment.key, assignment.attempt)}/step-0000009"
    (Path(assignment.folder) / path).mkdir(parents=True)
    value = 1 - assignment.number / 10
    yield Reported(9, 1000, value, {"f": value}, path, path, 9.0)
    yield Ended("budget", value, 9, path)


def test_a_study_keeps_the_checkpoints_of_the_finalists_that_it_has_here(desk):
    study = desk.begin()
    agenda = desk.agenda(study, Budget(trials=5))
    agenda._reruns_left = list
    rate = "optimizer/adamw/lr"
    agenda.unavailable = lambda params: "gone" if params[rate] == agenda.ledger.params(0)[rate] else ""
    with training_is(worth_less_and_less):
        inline.run(agenda, None, lambda: None)
    assert agenda.finalists() == [1, 2, 3]
    kept = [(desk.folder / "study" / attempt_folder("trial", n, 1) / "step-0000009").is_dir() for n in range(5)]
    assert kept == [True, True, True, True, False]


def test_what_was_saved_before_the_first_report_is_there_for_the_next_attempt(desk):
    """Another trial ends meanwhile, and what nothing needs any more is deleted."""
    agenda = desk.agenda(desk.begin(), slots=2)
    first, second = agenda.next(), agenda.next()
    saved = f"{attempt_folder(*second.key, 1)}/step-0000001"
    (desk.folder / "study" / saved).mkdir(parents=True)
    agenda.heard(second.key, Saved(1, saved))
    agenda.lost(second.key, "preempted", "SIGTERM")
    assert agenda.next().checkpoints == (saved,)
    for message in ending("budget")(first, None):
        agenda.heard(first.key, message)
    assert (desk.folder / "study" / saved).is_dir()


def test_the_sweep_spares_what_is_named_and_what_is_on_its_way(tmp_path):
    def made(number, attempt, *steps):
        for step in steps:
            (tmp_path / f"checkpoints/trial-{number:05d}/attempt-{attempt}/step-{step:07d}").mkdir(parents=True)

    made(0, 1, 1, 2, 3)  # finished, and a finalist by its step 2
    made(1, 1, 1, 2)  # an earlier attempt of one that runs
    made(1, 2, 1, 2, 3, 4)  # reported up to step 3
    made(2, 1, 1)  # runs, and has written its first checkpoint, but not reported it yet
    made(3, 1, 5)  # finished, and no finalist
    keep = {f"checkpoints/trial-{place}" for place in ("00000/attempt-1/step-0000002", "00001/attempt-2/step-0000003")}
    trials = {n: trial_row(n, TrialState.RUNNING if n in (1, 2) else TrialState.COMPLETE) for n in range(4)}
    standings = {("trial", n): Standing([{"saved": None}] * (2 if n == 1 else 1)) for n in range(4)}
    written = being_written(trials, {}, standings)
    assert written == {"checkpoints/trial-00001/attempt-2", "checkpoints/trial-00002/attempt-1"}
    sweep(tmp_path, keep, written)
    left = {str(each.relative_to(tmp_path / "checkpoints")) for each in tmp_path.glob("checkpoints/*/*/*")}
    assert left == {
        "trial-00000/attempt-1/step-0000002",
        "trial-00001/attempt-2/step-0000003",
        "trial-00001/attempt-2/step-0000004",
        "trial-00002/attempt-1/step-0000001",
    }
    sweep(tmp_path, keep, written)
    assert len(list(tmp_path.glob("checkpoints/*/*/*"))) == 4


def test_the_sweep_leaves_no_empty_folder_but_those_that_workers_write_into(tmp_path):
    for place in ("trial-00000/attempt-1/step-0000001", "trial-00001/attempt-1", "trial-00002/attempt-1/.step-2.77",
                  "trial-00003/attempt-1/step-0000001", "trial-00003/attempt-2",
                  "trial-00004/attempt-1/step-0000001"):  # fmt: skip
        (tmp_path / "checkpoints" / place).mkdir(parents=True)
    sweep(tmp_path, set(), {"checkpoints/trial-00003/attempt-2", "checkpoints/trial-00004/attempt-2"})
    left = {str(each.relative_to(tmp_path / "checkpoints")) for each in tmp_path.glob("checkpoints/*")}
    assert left == {"trial-00003", "trial-00004"}, "a worker is about to write into the second for the first time"
    left = {str(each.relative_to(tmp_path / "checkpoints")) for each in tmp_path.glob("checkpoints/*/*")}
    assert left == {"trial-00003/attempt-2"}


def test_the_sweep_deletes_what_was_left_half_written_and_not_what_is_being_written(tmp_path):
    kept, written = "checkpoints/trial-00000/attempt-1/step-0000003", "checkpoints/trial-00001/attempt-2"
    for place in (kept, "checkpoints/trial-00000/attempt-1/.step-0000009.77",
                  "checkpoints/trial-00001/attempt-1/.step-0000009.77", f"{written}/.step-0000009.78"):  # fmt: skip
        (tmp_path / place).mkdir(parents=True)
    sweep(tmp_path, {kept}, {written})
    left = {str(each.relative_to(tmp_path)) for each in tmp_path.glob("checkpoints/*/*/*")}
    assert left == {kept, f"{written}/.step-0000009.78"}


def test_the_end_of_one_trial_spares_the_first_checkpoint_of_another(desk):
    study = desk.begin()
    agenda = desk.agenda(study, slots=2)
    first, second = agenda.next(), agenda.next()
    fresh = desk.folder / "study/checkpoints/trial-00001/attempt-1/step-0000001"
    fresh.mkdir(parents=True)
    agenda.heard(first.key, next(quick(first, None)))
    agenda.heard(first.key, Ended("budget", 0.5, 1, "x"))
    assert fresh.exists()
    agenda.heard(second.key, Ended("memory"))
    assert not fresh.exists()


@pytest.mark.parametrize(("more", "seconds"), [({}, 30.0), ({BEFORE_TASK: 0.4}, 10.0 / (0.4 + 0.6 * 0.333))])
def test_a_rerun_takes_as_long_as_all_steps_of_the_trial_those_before_the_task_too(desk, more, seconds):
    agenda = desk.agenda(desk.begin())
    trial = agenda.next()
    report = [*quick(trial, None)][1]
    agenda.heard(trial.key, replace(report, seconds=10.0, metrics={**report.metrics, **more}))
    assert report.share == 333
    assert agenda.expected(trial.number) == pytest.approx(seconds, rel=1e-2)


def test_a_batch_is_halved_until_it_fits_or_is_one_row(desk):
    study = desk.begin(space=replace(SPACE, fixed={**SPACE.fixed, "training/batch": 8}))
    agenda, halvings = desk.agenda(study, Budget(trials=1)), []
    while (assignment := agenda.next()) is not None and assignment.kind == "trial":
        halvings.append(assignment.halvings)
        agenda.heard(assignment.key, Ended("memory"))
    assert halvings == [0, 1, 2, 3]
    assert desk.trials(study)[0].user_attrs["cause"] == "memory"
    told = [each["text"] for each in desk.store.rows(tables.events, study.id) if each["kind"] == "memory"]
    assert told[0] == "trial 0 out of memory with 8 rows at a time: tried again with 4"
