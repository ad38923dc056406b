"""A study that was killed and resumed is the study that was not: with one worker, row for row."""

from dataclasses import dataclass

import pytest
from fakes import SPACE, STEPS, Bomb, Desk, Killed, quick, told, training_is, value_at
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from deepmine_auto import Verdict
from deepmine_auto.executors import inline
from deepmine_auto.messages import Ended
from deepmine_auto.storage import tables
from deepmine_auto.study.agenda import Agenda
from deepmine_auto.study.budget import Budget
from deepmine_auto.study.pruning import judge
from deepmine_plugins.pruners.none import KeepAll

BUDGET = Budget(trials=5)


@dataclass(frozen=True)
class StopAtOnce(KeepAll):
    def keep(self, reports, trial, share):
        return Verdict(keep=False, value=1.0, cutoff=2.0, rung=7)


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path, fence=Bomb())


def found(desk, study):
    """All that a resume must not change: trials, finals, verdicts, and the curves by step."""
    reruns = [{**row, "study_id": None} for row in desk.store.rows(tables.reruns, study.id)]
    verdicts = {(row["number"], row["rung"]): row["keep"] for row in desk.store.rows(tables.verdicts, study.id)}
    curves = {(r["kind"], r["number"], r["step"]): r["value"] for r in desk.store.rows(tables.reports, study.id)}
    return plain(told(desk.trials(study))), plain(reruns), verdicts, curves


def plain(rows):
    """Rows without the paths, which name attempts."""

    def without(row):
        return {key: value for key, value in row.items() if key != "checkpoint"}

    return [without({**row, "attrs": without(row.get("attrs", {}))}) for row in rows]


def killed_every(desk, name, transactions):
    """Run a study whose drivers die after so many transactions each, until it is done; return it and the kills."""
    study, kills = desk.begin(name), 0
    while True:
        desk.fence.left = transactions
        try:
            desk.work(study, BUDGET)
            break
        except Killed:
            kills += 1
        finally:
            desk.fence.left = None
    return study, kills


def test_a_study_killed_after_every_k_transactions_equals_the_one_that_was_not(desk):
    whole = found(desk, desk.begin_and_work("whole"))
    for k in (23, 29, 31, 37):
        study, kills = killed_every(desk, f"every-{k}", k)
        assert kills >= 3
        assert found(desk, study) == whole, k
        sessions = desk.store.sessions(study.id)
        assert [row["epoch"] for row in sessions] == list(range(1, len(sessions) + 1))


@pytest.mark.slow
def test_a_study_killed_once_at_any_transaction_equals_the_one_that_was_not(desk):
    """At every third one, to be quick; all of them held when this was written."""
    whole = found(desk, desk.begin_and_work("whole"))
    k = 1
    while True:
        study = desk.begin(f"at-{k}")
        desk.fence.left = k
        try:
            desk.work(study, BUDGET)
            break
        except Killed:
            desk.fence.left = None
            desk.work(study, BUDGET)
        assert found(desk, study) == whole, k
        k += 3
    assert k > 100


def test_a_budget_that_grows_goes_on_with_the_same_trials(desk):
    whole = told(desk.trials(desk.begin_and_work("whole")))
    study = desk.begin("grown")
    for trials in (2, 3, 5):
        agenda = desk.agenda(study, Budget(trials=trials))
        agenda._reruns_left = list
        with training_is(quick):
            inline.run(agenda, None, lambda: None)
    assert told(desk.trials(study)) == whole


def test_a_report_after_which_the_driver_was_killed_is_shown_by_the_next_one(desk):
    """The worker goes on after that report's checkpoint, so it will not send it again."""
    study = desk.begin()
    ledger = desk.ledger(study)
    assignment = ledger.ask()
    first, second, *_ = quick(assignment, None)
    ledger.report(assignment, first, out_of_time=False)
    desk.fence.left = 1  # the report's own transaction passes, Optuna's intermediate value does not
    with pytest.raises(Killed):
        ledger.report(assignment, second, out_of_time=False)
    desk.fence.left = None
    assert set(desk.trials(study)[0].intermediate_values) == {STEPS[0]}
    resumed = desk.ledger(study)
    assert set(desk.trials(study)[0].intermediate_values) == set(STEPS[:2])
    assert set(resumed.mirror.study.get_trials()[0].intermediate_values) == set(STEPS[:2])


def test_a_written_verdict_is_carried_out_and_not_trained_again(desk):
    study = desk.begin()
    ledger = desk.ledger(study)
    assignment = ledger.ask()
    ledger.pruner = StopAtOnce()
    desk.fence.left = 3  # the report, its curve and the verdict pass; the trial's end does not
    with pytest.raises(Killed):
        ledger.report(assignment, next(quick(assignment, None)), out_of_time=False)
    desk.fence.left = None
    assert [row["keep"] for row in desk.store.rows(tables.verdicts, study.id)] == [False]
    assert desk.trials(study)[0].state.name == "RUNNING"
    agenda = desk.agenda(study, Budget(trials=1))
    assert agenda._adopted() is None
    (row,) = desk.trials(study)
    assert (row.state.name, row.user_attrs["cause"], row.value) == ("PRUNED", "pruned", value_at(assignment, STEPS[0]))


def test_a_verdict_before_which_the_driver_was_killed_is_taken_by_the_next_one(desk):
    study = desk.begin()
    ledger = desk.ledger(study)
    assignment = ledger.ask()
    desk.fence.left = 2  # the report and its curve pass; the verdict does not
    with pytest.raises(Killed):
        ledger.report(assignment, next(quick(assignment, None)), out_of_time=False)
    desk.fence.left = None
    assert not desk.store.rows(tables.verdicts, study.id)
    desk.pruner = StopAtOnce()
    assert desk.agenda(study, Budget(trials=1))._adopted() is None
    assert [row["keep"] for row in desk.store.rows(tables.verdicts, study.id)] == [False]
    assert desk.trials(study)[0].state.name == "PRUNED"


def test_a_verdict_that_was_not_written_is_computed_again_and_is_the_same(desk):
    whole = found(desk, desk.begin_and_work("whole"))
    study = desk.begin("torn")
    desk.work(study, BUDGET)
    with desk.store.engine.begin() as connection:
        connection.execute(tables.verdicts.delete().where(tables.verdicts.c.study_id == study.id))
    ledger = desk.ledger(study)
    for report in ledger.history.reports:
        verdict = judge(ledger.pruner, ledger.history.reports, report.seq)
        if verdict.rung is not None:
            assert whole[2][report.trial, verdict.rung] == verdict.keep


# -- a model of the ledger ---------------------------------------------------------------------------------------------


class Driver(RuleBasedStateMachine):
    """The ledger against a dict: whatever happens in whatever order, with two workers and drivers that die."""

    desk: Desk
    count = 0
    MOST = 6

    @initialize()
    def begin(self):
        Driver.count += 1
        self.study = self.desk.begin(f"study-{Driver.count}")
        self.rows = {}  # number -> [params, state, steps reported]
        self.finished = {}
        self.drive()

    def drive(self):
        self.agenda = Agenda(self.desk.ledger(self.study), Budget(trials=self.MOST), 2, lambda: 0.0)
        self.agenda._reruns_left = list
        self.waiting = {}  # key -> messages to come

    @precondition(lambda self: len(self.agenda.running) < 2)
    @rule()
    def hand_out(self):
        adopted = bool(self.agenda.left)
        assignment = self.agenda.next()
        if assignment is None:
            self.settle()
            assert len(self.rows) == self.MOST
            return
        known = assignment.number in self.rows
        if known:
            assert adopted
            assert dict(assignment.params) == self.rows[assignment.number]
            assert assignment.attempt > 1
        else:
            assert assignment.number == len(self.rows), "numbers are dense"
            self.settle()
            assert not [n for n in self.rows if n not in self.finished and ("trial", n) not in self.agenda.running], (
                "what was RUNNING is adopted before anything new is asked"
            )
            self.rows[assignment.number] = dict(assignment.params)
        self.waiting[assignment.key] = list(quick(assignment, None))
        self.settle()

    def settle(self):
        """Take over the ends that a resume carried out by itself."""
        for each in self.desk.trials(self.study):
            if each.state.is_finished() and each.number not in self.finished:
                self.finished[each.number] = told([each])[0]

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def hear(self, data):
        key = data.draw(st.sampled_from(sorted(self.waiting)))
        message = self.waiting[key].pop(0)
        if not self.agenda.heard(key, message):
            del self.waiting[key]
            (row,) = [each for each in self.desk.trials(self.study) if each.number == key[1]]
            assert row.state.is_finished()
            self.finished[key[1]] = told([row])[0]

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), cause=st.sampled_from(["diverged", "memory", "plugin"]))
    def fail(self, data, cause):
        key = data.draw(st.sampled_from(sorted(self.waiting)))
        self.waiting[key] = [Ended(cause, plugin=f"technique/{key[1]}" if cause == "plugin" else None, reason="x")]

    @precondition(lambda self: self.finished)
    @rule(data=st.data())
    def late(self, data):
        number = data.draw(st.sampled_from(sorted(self.finished)))
        assert not self.agenda.heard(("trial", number), Ended("error", reason="late"))

    @rule()
    def crash_and_resume(self):
        self.drive()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def lose_a_worker(self, data):
        key = data.draw(st.sampled_from(sorted(self.waiting)))
        del self.waiting[key]
        self.agenda.lost(key, "lost", "gone")

    @invariant()
    def nothing_finished_is_lost_or_changed(self):
        if not hasattr(self, "agenda"):
            return
        rows = {each.number: each for each in self.desk.trials(self.study)}
        assert {number: told([rows[number]])[0] for number in self.finished} == self.finished
        assert sorted(rows) == list(range(len(rows))) == sorted(self.rows), "no duplicates, none lost"
        assert len(rows) <= self.MOST
        assert {number: {**SPACE.fixed, **row.params} for number, row in rows.items()} == self.rows

    @invariant()
    def seq_strictly_grows_and_the_memory_is_the_database(self):
        if not hasattr(self, "agenda"):
            return
        found = self.desk.store.rows(tables.reports, self.study.id)
        assert [row["seq"] for row in found] == list(range(1, len(found) + 1))
        ledger = self.agenda.ledger
        assert ledger.history.seq == len(found)
        known = [row for standing in ledger.history.standing.values() for row in standing.reports]
        assert sorted(row["seq"] for row in known) == [row["seq"] for row in found]

    def teardown(self):
        """Whatever was left can be finished, by exactly as many trials as were asked for."""
        self.agenda = self.desk.agenda(self.study, Budget(trials=self.MOST))
        self.agenda._reruns_left = list
        with training_is(quick):
            inline.run(self.agenda, None, lambda: None)
        rows = self.desk.trials(self.study)
        assert len(rows) == self.MOST
        assert all(each.state.is_finished() and each.user_attrs["cause"] for each in rows)
        assert {each["number"]: each for each in told(rows) if each["number"] in self.finished} == self.finished


def test_the_ledger_is_the_dict_that_models_it(tmp_path):
    from hypothesis.stateful import run_state_machine_as_test

    Driver.desk = Desk(tmp_path)
    checks = settings(
        max_examples=25,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    run_state_machine_as_test(Driver, settings=checks)
