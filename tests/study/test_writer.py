"""Every write lasts: in the database, or in the outbox while that is away; and done again it changes nothing."""

import errno
import time

import pytest
from away import Switch, without_fsync
from fakes import Desk, quick, training_is
from undisturbed import assert_whole, every_row

from deepmine_auto.errors import DatabaseAway, StudyHeld
from deepmine_auto.executors import inline
from deepmine_auto.messages import Saved, attempt_folder
from deepmine_auto.storage import tables
from deepmine_auto.storage.store import Conflict
from deepmine_auto.study import writer
from deepmine_auto.study.budget import Budget
from deepmine_auto.study.outbox import Entry, Outbox, left_in

THREE = Budget(trials=3)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "SECONDS_BETWEEN_PROBES", 0.01)
    monkeypatch.setattr(inline, "WAIT_SECONDS", 0.001)
    return without_fsync(Desk(tmp_path))


@pytest.fixture
def switch(desk):
    return Switch(desk)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All rows of the study that nothing disturbed."""
    desk = Desk(tmp_path_factory.mktemp("whole"))
    study = desk.begin()
    desk.work(study, THREE)
    return every_row(desk.store, study)


def events(desk, study, *kinds):
    return [row["text"] for row in desk.store.rows(tables.events, study.id) if row["kind"] in kinds]


def back(agenda):
    """Wait until the driver has its database again."""
    until = time.monotonic() + 10
    while not agenda.ledger.writer.connected():
        assert time.monotonic() < until
        time.sleep(0.001)


# -- again -------------------------------------------------------------------------------------------------------------


OPS = {*writer.TABLES, "report", "show", "tell", "end rerun", "save", "result"}


@pytest.fixture
def written(desk, monkeypatch):
    """A study that is over, all entries that made it, and its rows."""
    entries = []
    apply = writer.apply

    def noting(store, study_id, entry):
        entries.append(entry)
        apply(store, study_id, entry)

    monkeypatch.setattr(writer, "apply", noting)
    study = desk.begin()
    agenda = desk.agenda(study, Budget(trials=2))
    first = agenda.next()
    agenda.heard(first.key, Saved(2, f"{attempt_folder(*first.key, 1)}/step-0000002"))
    agenda.lost(first.key, "preempted", "gone")
    with training_is(quick):
        inline.run(agenda, None, lambda: None)
    agenda.ledger.write_result({"winner": 0})
    monkeypatch.undo()
    return study, entries


def test_every_entry_written_again_changes_nothing(desk, written):
    study, entries = written
    assert {each.op for each in entries} == OPS
    before = every_row(desk.store, study), desk.store.rows(tables.events, study.id)
    desk.free()
    for each in entries:
        writer.apply(desk.store, study.id, each)
    assert (every_row(desk.store, study), desk.store.rows(tables.events, study.id)) == before


CHANGED = {
    "report": lambda row: {**row, "report": {**row["report"], "value": 0.123}},
    "verdict": lambda row: {**row, "keep": not row["keep"]},
    "attempt": lambda row: {**row, "epoch": 99},
    "rerun": lambda row: {**row, "trial": row["trial"] + 1},
    "event": lambda row: {**row, "text": "another"},
    "tell": lambda row: {**row, "values": [0.123]},
    "end rerun": lambda row: {**row, "values": {**row["values"], "value": 0.123}},
}


@pytest.mark.parametrize("op", CHANGED)
def test_what_contradicts_the_rows_is_a_conflict_and_changes_nothing(desk, written, op):
    study, entries = written
    before = every_row(desk.store, study), desk.store.rows(tables.events, study.id)
    desk.free()
    row = CHANGED[op](next(each.row for each in entries if each.op == op))
    with pytest.raises(Conflict, match=r"^(Another row of deepmine_\w+ stands where .* should be|Trial 0 should)"):
        writer.apply(desk.store, study.id, Entry(op, row))
    assert (every_row(desk.store, study), desk.store.rows(tables.events, study.id)) == before


def test_an_error_that_will_not_pass_is_raised_and_waits_nowhere(desk):
    study = desk.begin()
    ledger = desk.ledger(study)
    ledger.event("note", "one")
    ledger.history.event -= 1
    with pytest.raises(Conflict, match="Another row of deepmine_events stands where"):
        ledger.event("note", "two")
    assert ledger.writer.connected()
    assert not left_in(desk.folder / "study")


# -- away and back -----------------------------------------------------------------------------------------------------


def run(desk, switch, name, **trouble):
    """A study in which a database is in trouble after so many transactions of its driver, and its events."""
    study = desk.begin(name)
    agenda = desk.agenda(study, THREE)
    vars(switch).update(trouble)
    with training_is(quick):
        inline.run(agenda, None, lambda: None)
    back(agenda)
    return study, switch.due


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["refuse", "lose"])
def test_a_study_whose_database_is_in_trouble_at_any_time_is_the_same_row_for_row(desk, switch, whole, trouble):
    """At every 37th statement, to be quick; all of them held when this was written."""
    for after in range(0, 9999, 37):
        study, over = run(desk, switch, f"{trouble}-{after}", **{"after": after, trouble: 5})
        if over:
            break
        assert every_row(desk.store, study) == whole, after
        assert_whole(desk.store, study, 3)
    assert after > 500


def test_without_the_database_reports_and_ends_wait_in_order_and_nothing_is_asked(desk, switch, whole):
    study = desk.begin()
    agenda = desk.agenda(study, THREE, slots=2)
    assignment = agenda.next()
    switch.off = True
    *reports, end = quick(assignment, None)
    assert all(agenda.heard(assignment.key, each) for each in reports)
    assert agenda.next() is None
    assert not agenda.heard(assignment.key, end)
    assert agenda.next() is None
    assert not agenda.done
    waiting = [each.op for each in agenda.ledger.writer.outbox.entries()]
    assert [op for op in waiting if op not in ("event", "verdict")] == [*["report", "show"] * 4, "tell"]
    switch.off = False
    assert [row.state.name for row in desk.trials(study)] == ["RUNNING"]
    back(agenda)
    assert [row.state.name for row in desk.trials(study)] == ["COMPLETE"]
    with training_is(quick):
        inline.run(agenda, None, lambda: None)
    assert every_row(desk.store, study) == whole


def test_that_the_database_went_away_and_came_back_is_told_and_written(desk, switch):
    study = desk.begin()
    agenda = desk.agenda(study)
    assignment = agenda.next()
    switch.refuse = 9
    agenda.heard(assignment.key, next(quick(assignment, None)))
    back(agenda)
    file = agenda.ledger.writer.outbox.file
    away, came_back = events(desk, study, "away", "back")
    assert away == f"the study database cannot be reached: work goes on, and {file} keeps what it finds"
    assert came_back == "the study database is back: 4 entries were written to it"
    assert [text for kind, text, _ in desk.events if kind in ("away", "back")] == [away, came_back]
    assert not file.exists()


def test_after_ten_minutes_without_it_the_driver_ends_and_the_next_one_goes_on(desk, switch, whole, monkeypatch):
    study = desk.begin()
    agenda = desk.agenda(study, THREE)
    first = agenda.next()
    for message in quick(first, None):
        agenda.heard(first.key, message)
        switch.off = True
    assert agenda.next() is None
    monkeypatch.setattr(writer, "MOST_AWAY", 0.0)
    told = r"^The study database cannot be reached; \d+ entries wait in .*outbox-1.jsonl\. They are written first by:"
    with pytest.raises(DatabaseAway, match=told) as raised:
        agenda.next()
    assert raised.value.exit_code == 6
    switch.off = False
    desk.work(study, THREE)
    assert {**every_row(desk.store, study), "deepmine_attempts": 0} == {**whole, "deepmine_attempts": 0}
    assert_whole(desk.store, study, 3)
    (replayed,) = events(desk, study, "replayed")
    assert replayed.endswith("entries that waited for the database were written to it")


def test_what_was_found_at_the_very_end_waits_for_the_next_driver(desk, switch):
    study = desk.begin()
    agenda = desk.work(study, Budget(trials=1))
    switch.off = True
    agenda.ledger.event("test opened", "for trial 0")
    agenda.ledger.write_result({"winner": 0})
    with pytest.raises(DatabaseAway, match=r"cannot be reached; 3 entries wait in .*deepmine-auto resume study$"):
        agenda.ledger.writer.settle()
    switch.off = False
    assert desk.store.study("study").result is None
    assert writer.replay_left(desk.store, study) == ["3 entries that waited for the database were written to it"]
    assert desk.store.study("study").result == {"winner": 0}
    assert events(desk, study, "test opened") == ["for trial 0"]
    assert writer.replay_left(desk.store, study) == []


# -- full --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def full(monkeypatch):
    """A disk without room for an outbox, for so many tries as the test says."""
    left = [0]
    append = Outbox.append

    def tried(self, entry):
        if left[0]:
            left[0] -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, entry)

    monkeypatch.setattr(Outbox, "append", tried)
    return left


def test_where_the_disk_of_the_outbox_is_full_the_driver_waits_and_goes_on(desk, switch, full, whole):
    study = desk.begin()
    agenda = desk.agenda(study, THREE)
    first = agenda.next()
    switch.refuse, full[0] = 30, 5
    with training_is(quick):
        for message in quick(first, None):
            agenda.heard(first.key, message)
        inline.run(agenda, None, lambda: None)
    back(agenda)
    assert every_row(desk.store, study) == whole
    (told,) = [text for kind, text, _ in desk.events if kind == "full"]
    assert told.startswith("waiting: ")
    assert told.endswith("outbox-1.jsonl cannot be written: No space left on device")


def test_where_the_disk_stays_full_a_database_that_comes_back_is_enough(desk, switch, full):
    study = desk.begin()
    agenda = desk.agenda(study, THREE)
    first = agenda.next()
    switch.refuse, full[0] = 4, 1_000_000
    *reports, end = quick(first, None)
    for message in (*reports, end):
        agenda.heard(first.key, message)
    assert agenda.ledger.writer.connected()
    assert desk.trials(study)[0].state.name == "COMPLETE"


def test_a_disk_that_is_full_again_later_is_told_again(desk, switch, full):
    study = desk.begin()
    agenda = desk.agenda(study, THREE)
    for _ in range(2):
        work = agenda.next()
        switch.refuse, full[0] = 4, 1_000_000
        for message in quick(work, None):
            agenda.heard(work.key, message)
        assert agenda.ledger.writer.connected()
        full[0] = 0
    assert len([kind for kind, _, _ in desk.events if kind == "full"]) == 2


def test_where_neither_can_be_written_for_ten_minutes_the_driver_ends(desk, switch, full, monkeypatch):
    study = desk.begin()
    agenda = desk.agenda(study, THREE)
    first = agenda.next()
    monkeypatch.setattr(writer, "MOST_AWAY", 0.05)
    switch.off, full[0] = True, 1_000_000
    told = r"^Neither the study database nor .*outbox-1\.jsonl can be written: No space left on device\. Make room"
    with pytest.raises(DatabaseAway, match=told):
        agenda.heard(first.key, next(quick(first, None)))
    assert not [kind for kind, _, _ in desk.events if kind == "back"], "that it answers does not mean that it can write"


# -- another driver ----------------------------------------------------------------------------------------------------


@pytest.fixture
def overtaken(desk, switch):
    """A driver that lost its database, another that took its study over meanwhile, and that one's desk."""
    study = desk.begin()
    agenda = desk.agenda(study, THREE)
    first = agenda.next()
    switch.off = True
    other = without_fsync(Desk(desk.folder))
    successor = other.agenda(study, THREE)
    assert successor.next().key == first.key
    for message in quick(first, None):
        agenda.heard(first.key, message)
    return study, agenda, other, successor


def test_a_driver_that_was_overtaken_while_away_writes_nothing_and_keeps_what_it_has(desk, switch, overtaken):
    study, agenda, other, _ = overtaken
    before = every_row(other.store, study)
    waiting = agenda.ledger.writer.outbox.entries()
    switch.off = False
    with pytest.raises(StudyHeld, match=r"Another process took this study over \(epoch 2\)\. Nothing more is written"):
        back(agenda)
    assert every_row(other.store, study) == before
    assert agenda.ledger.writer.outbox.entries() == waiting


def test_what_an_overtaken_driver_kept_is_put_aside_and_not_counted(desk, overtaken, whole):
    study, agenda, other, successor = overtaken
    waiting = agenda.ledger.writer.outbox.entries()
    with training_is(quick):
        successor.lost(("trial", 0), "lost", "its worker stayed with the other")
        inline.run(successor, None, lambda: None)
    before = every_row(other.store, study)
    other.ledger(study)
    assert every_row(other.store, study) == before
    assert before["trials"] == whole["trials"]
    aside = Outbox(desk.folder / "study", 1)
    assert left_in(desk.folder / "study") == []
    aside.file = aside.file.with_name("late-outbox-1.jsonl")
    assert aside.entries() == waiting
    (told,) = events(other, study, "replayed")
    assert told == f"{len(waiting)} entries of a driver that was overtaken are not counted: {aside.file}"


def test_an_overtaken_driver_deletes_no_checkpoint_of_its_successor(desk, switch):
    study = desk.begin()
    agenda = desk.agenda(study, THREE)
    first = agenda.next()
    switch.off = True
    theirs = desk.folder / "study" / attempt_folder("trial", 0, 2) / "step-0000003"
    theirs.mkdir(parents=True)
    for message in quick(first, None):
        agenda.heard(first.key, message)
    assert theirs.exists()


def test_what_was_stopped_meanwhile_stays_as_it_stands(desk, switch):
    study = desk.begin()
    agenda = desk.agenda(study, Budget(trials=1))
    first = agenda.next()
    switch.off = True
    for message in quick(first, None):
        agenda.heard(first.key, message)
    switch.off = False
    desk.free()
    desk.store.finish_trial(desk.trials(study)[0]._trial_id, "FAIL", None, {"cause": "cancelled"}, {})
    desk.ledger(study)
    (row,) = desk.trials(study)
    assert (row.state.name, row.user_attrs["cause"]) == ("FAIL", "cancelled")
    assert len(desk.store.rows(tables.reports, study.id)) == 4
    assert not left_in(desk.folder / "study")
