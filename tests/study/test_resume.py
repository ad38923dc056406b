"""A study that was killed and resumed is the study that was not: with one worker, row for row."""

import time
from dataclasses import dataclass
from itertools import cycle

import pytest
from away import Switch, without_fsync
from fakes import SPACE, STEPS, Bomb, Desk, Killed, quick, told, training_is, value_at
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from undisturbed import assert_whole, found

from deepmine_auto import Verdict
from deepmine_auto.errors import DatabaseAway, StudyHeld
from deepmine_auto.executors import inline
from deepmine_auto.messages import Ended, Saved, attempt_folder
from deepmine_auto.space import Space
from deepmine_auto.storage import tables
from deepmine_auto.storage.store import Store
from deepmine_auto.study import writer
from deepmine_auto.study.agenda import Agenda
from deepmine_auto.study.budget import Budget
from deepmine_auto.study.causes import AGAIN
from deepmine_auto.study.pruning import judge
from deepmine_plugins.pruners.none import KeepAll

BUDGET = Budget(trials=5)


@dataclass(frozen=True)
class StopAtOnce(KeepAll):
    def keep(self, reports, trial, share):
        return Verdict(keep=False, value=1.0, cutoff=2.0, rung=7)


@pytest.fixture
def desk(tmp_path):
    return without_fsync(Desk(tmp_path, fence=Bomb()))


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
    whole = found(desk.store, desk.begin_and_work("whole"))
    for k in (23, 29, 31, 37):
        study, kills = killed_every(desk, f"every-{k}", k)
        assert kills >= 3
        assert found(desk.store, study) == whole, k
        sessions = desk.store.sessions(study.id)
        assert [row["epoch"] for row in sessions] == list(range(1, len(sessions) + 1))


@pytest.mark.slow
def test_a_study_killed_once_at_any_transaction_equals_the_one_that_was_not(desk):
    """At every third one, to be quick; all of them held when this was written."""
    whole = found(desk.store, desk.begin_and_work("whole"))
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
        assert found(desk.store, study) == whole, k
        k += 3
    assert k > 100


def test_a_clock_that_jumps_changes_nothing(desk, monkeypatch):
    """The time of day is for people; what is decided is decided by rows and by the monotonic clock."""
    whole = found(desk.store, desk.begin_and_work("whole"))
    jumps, real = cycle((0.0, 7200.0, -7200.0, 86400.0)), time.time
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    assert found(desk.store, desk.begin_and_work("jumping")) == whole


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
    shown = resumed.mirror.study.get_trials()[0].intermediate_values
    assert set(shown) == {round(1000 * each / STEPS[-1]) for each in STEPS[:2]}, "a sampler compares shares"


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
    whole = found(desk.store, desk.begin_and_work("whole"))
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
    """The ledger against a dict, whatever happens in whatever order: two workers, drivers that die or are overtaken,
    and a database that goes away."""

    desks: tuple[Desk, Desk]
    switches: tuple[Switch, Switch]
    reader: Store
    count = 0
    MOST = 6
    SPACE = Space(SPACE.params, {**SPACE.fixed, "training/batch": 8})

    @initialize()
    def begin(self):
        Driver.count += 1
        self.at = 0
        for each in self.switches:
            each.off, each.lose = False, 0
        self.study = self.desk.begin(f"study-{Driver.count}", self.SPACE)
        self.rows = {}  # number -> params
        self.finished = {}  # number -> all that was told
        self.drive()

    @property
    def desk(self):
        """Where the driver sits that holds the study."""
        return self.desks[self.at]

    @property
    def switch(self):
        return self.switches[self.at]

    @property
    def away(self):
        return self.agenda.ledger.writer.away_since is not None

    def drive(self):
        self.agenda = Agenda(self.desk.ledger(self.study), Budget(trials=self.MOST), 2, lambda: 0.0)
        self.agenda._reruns_left = list
        self.waiting = {}  # key -> messages to come

    # -- work --

    @precondition(lambda self: len(self.agenda.running) < 2)
    @rule()
    def hand_out(self):
        adopted = bool(self.agenda.left)
        assignment = self.agenda.next()
        self.settle()
        if assignment is None:
            assert self.away or len(self.rows) == self.MOST
            return
        if assignment.number in self.rows:
            assert adopted
            assert dict(assignment.params) == self.rows[assignment.number]
            assert assignment.attempt > 1
        else:
            assert assignment.number == len(self.rows), "numbers are dense"
            assert not [n for n in self.rows if n not in self.finished and ("trial", n) not in self.agenda.running], (
                "what was RUNNING is adopted before anything new is asked"
            )
            self.rows[assignment.number] = dict(assignment.params)
        attempts = self.attempts(assignment.key)
        own = sum(row["because"] == "memory" for row in attempts)
        every = [row for each in self.agenda.ledger.history.standing.values() for row in each.attempts]
        assert own <= assignment.halvings <= sum(row["because"] == "memory" for row in every)
        assert own <= AGAIN["memory"].most
        assert sum(row["because"] in ("lost", "hung") for row in attempts) <= 4
        self.waiting[assignment.key] = list(quick(assignment, None))

    def attempts(self, key):
        return self.agenda.ledger.history.of(*key).attempts

    def settle(self):
        """Take over the ends that the ledger has told of."""
        for number, each in self.agenda.ledger.trials.items():
            if each.state.is_finished() and number not in self.finished:
                self.finished[number] = told([each])[0]

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def hear(self, data):
        key = data.draw(st.sampled_from(sorted(self.waiting)))
        message = self.waiting[key].pop(0)
        if not self.agenda.heard(key, message):
            del self.waiting[key]
            self.settle()
            assert key[1] in self.finished or self.agenda.left[-1] == (key, "memory")

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

    # -- workers go --

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), hung=st.booleans())
    def lose_a_worker(self, data, hung):
        key = data.draw(st.sampled_from(sorted(self.waiting)))
        del self.waiting[key]
        if hung:
            self.agenda.heard_at[key] -= 1e6
            assert [each for each, _ in self.agenda.hung()] == [key]
        again = sum(row["because"] in ("lost", "hung") for row in self.attempts(key)) < 4
        self.agenda.lost(key, "hung" if hung else "lost", "gone")
        self.settle()
        assert again == (key[1] not in self.finished)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def preempt(self, data):
        key = data.draw(st.sampled_from(sorted(self.waiting)))
        del self.waiting[key]
        assignment = self.agenda.running[key]
        newest = max([0, *(row["step"] for row in self.agenda.ledger.history.of(*key).reports)])
        saved = f"{attempt_folder(*key, assignment.attempt)}/step-{newest:07d}"
        assert self.agenda.heard(key, Saved(newest, saved))
        self.agenda.lost(key, "preempted", "SIGTERM")
        self.settle()
        assert key[1] not in self.finished, "preemption is not counted"
        assert self.agenda.ledger.history.of(*key).checkpoints()[0] == saved

    # -- drivers go --

    @rule()
    def crash_and_resume(self):
        if self.switch.off:
            with pytest.raises(DatabaseAway, match="cannot be used: disk I/O error"):
                self.desk.ledger(self.study)
        self.switch.off, self.switch.lose = False, 0
        self.drive()
        self.settle()

    @rule()
    def take_over(self):
        overtaken, waiting, switch = self.agenda, self.waiting, self.switch
        self.at = 1 - self.at
        self.switch.off, self.switch.lose = False, 0
        self.drive()
        self.settle()
        switch.off, switch.lose = False, 0
        before = self.everything()
        with pytest.raises(StudyHeld, match="Another process took this study over"):
            write_something(overtaken)
        for key, messages in waiting.items():
            with pytest.raises(StudyHeld, match="Another process took this study over"):
                overtaken.heard(key, messages[0])
        assert self.everything() == before

    # -- the database goes --

    @precondition(lambda self: not self.switch.off)
    @rule()
    def go_away(self):
        self.switch.off = True

    @precondition(lambda self: self.switch.off)
    @rule()
    def come_back(self):
        self.switch.off = False
        come_back(self.agenda)

    @rule(count=st.integers(1, 4))
    def lose_acknowledgements(self, count):
        self.switch.lose = count

    # -- what always holds --

    def everything(self):
        names = (tables.reports, tables.verdicts, tables.attempts, tables.reruns, tables.events)
        return told(self.reader.trials(self.study.id)), [self.reader.rows(each, self.study.id) for each in names]

    @invariant()
    def nothing_finished_is_lost_or_changed(self):
        if not hasattr(self, "agenda"):
            return
        rows = {each.number: each for each in self.reader.trials(self.study.id)}
        waiting = [each.row["trial_id"] for each in self.agenda.ledger.writer.outbox.entries() if each.op == "tell"]
        for number, row in self.finished.items():
            assert rows[number]._trial_id in waiting or told([rows[number]])[0] == row
        assert sorted(rows) in [sorted(self.rows), [*sorted(self.rows), len(self.rows)]], (
            "none is lost, and one more at most: its acknowledgement was lost"
        )
        assert len(rows) <= self.MOST
        assert all({**self.SPACE.fixed, **rows[number].params} == params for number, params in self.rows.items())

    @invariant()
    def seq_strictly_grows_and_the_memory_is_what_was_written(self):
        if not hasattr(self, "agenda"):
            return
        ledger = self.agenda.ledger
        found = [row["seq"] for row in self.reader.rows(tables.reports, self.study.id)]
        waiting = [each.row["report"]["seq"] for each in ledger.writer.outbox.entries() if each.op == "report"]
        written = sorted({*found, *waiting})
        assert written == list(range(1, len(written) + 1))
        assert ledger.history.seq == len(written)
        known = [row for standing in ledger.history.standing.values() for row in standing.reports]
        assert sorted(row["seq"] for row in known) == written

    def teardown(self):
        """Whatever was left can be finished, by exactly as many trials as were asked for."""
        if not hasattr(self, "agenda"):
            return
        self.switch.off, self.switch.lose = False, 0
        self.agenda = self.desk.agenda(self.study, Budget(trials=self.MOST))
        self.agenda._reruns_left = list
        with training_is(quick):
            inline.run(self.agenda, None, lambda: None)
        rows = self.desk.trials(self.study)
        self.desk.ledger(self.study)  # puts aside what an overtaken driver left
        assert_whole(self.reader, self.study, self.MOST)
        assert {each["number"]: each for each in told(rows) if each["number"] in self.finished} == self.finished


def come_back(agenda):
    """Wait until a driver has its database again."""
    until = time.monotonic() + 10
    while not agenda.ledger.writer.connected():
        assert time.monotonic() < until
        time.sleep(0.001)


def write_something(agenda):
    agenda.ledger.event("note", "still here")
    come_back(agenda)


def test_the_ledger_is_the_dict_that_models_it(tmp_path, monkeypatch):
    from hypothesis.stateful import run_state_machine_as_test

    monkeypatch.setattr(writer, "SECONDS_BETWEEN_PROBES", 0.001)
    Driver.desks = tuple(without_fsync(Desk(tmp_path)) for _ in range(2))
    Driver.switches = tuple(Switch(each) for each in Driver.desks)
    Driver.reader = Store(Driver.desks[0].place.open_reader())
    checks = settings(
        max_examples=30,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    run_state_machine_as_test(Driver, settings=checks)
