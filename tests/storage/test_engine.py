"""Both kinds of database: who may write, who may read, and what goes wrong between them."""

import os
import pickle
import sqlite3
import subprocess
import sys
import threading

import cloudpickle
import optuna
import pytest
from fakes import Desk
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from sqlalchemy import text

from deepmine_auto.errors import BadInput, DatabaseAway, StudyHeld
from deepmine_auto.storage import tables
from deepmine_auto.storage.away import is_away, probe
from deepmine_auto.storage.engine import Fence, LockLost, StudyDeleted, words_of
from deepmine_auto.storage.store import Store


@pytest.fixture
def desk(tmp_path, place):
    return Desk(tmp_path, place=place)


def all_rows(store):
    """Every row of every table, Optuna's too."""
    with store.engine.connect() as connection:
        names = sorted({*optuna.storages._rdb.models.BaseModel.metadata.tables, *tables.metadata.tables})
        return {each: sorted(map(repr, connection.execute(text(f"SELECT * FROM {each}")).all())) for each in names}


def together(*works):
    """Do works at the same time, and return what they raised."""
    raised = []

    def caught(work):
        try:
            work()
        except Exception as error:
            raised.append(error)

    threads = [threading.Thread(target=caught, args=(each,)) for each in works]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return raised


# -- the writer --------------------------------------------------------------------------------------------------------

CREATE = """
import sys
from deepmine_auto.storage.engine import Fence
from deepmine_auto.storage.place import place_of
from deepmine_auto.storage.store import Store
from deepmine_auto.objectives import Objective
store = Store(place_of(sys.argv[1]).open_writer(Fence()))
spec = {"task": "t", "seed": 0, "space_name": "s", "fingerprint": "f"}
store.create_study(sys.argv[2], [Objective("f", "maximize")], "folder", spec)
"""


@pytest.mark.slow
def test_four_processes_that_create_one_database_all_succeed(place):
    assert place.names() == set()
    command = [sys.executable, "-c", CREATE, str(place)]
    begun = [subprocess.Popen([*command, f"study{at}"], stderr=subprocess.PIPE, text=True) for at in range(4)]
    told = [each.communicate()[1] for each in begun]
    assert [each.returncode for each in begun] == [0] * 4, told
    assert place.names() == {f"study{at}" for at in range(4)}


def test_a_study_is_worked_off_and_read_the_same_in_both(desk, place):
    study = desk.begin()
    desk.work(study)
    reader = Store(place.open_reader())
    assert [each.state.name for each in reader.trials(study.id)] == [each.state.name for each in desk.trials(study)]
    assert all_rows(reader) == all_rows(desk.store)
    assert {"COMPLETE", "PRUNED"} == {each.state.name for each in desk.trials(study)}


def test_a_value_comes_back_to_the_last_digit(desk):
    study = desk.begin()
    row = {"seq": 1, "kind": "trial", "number": 0, "attempt": 1, "step": 1, "share": 1, "value": 0.1 + 0.2}
    row |= {"metrics": {"f": 1 / 3, "none": None}, "checkpoint": None, "best_checkpoint": "ä", "seconds": 1e-300}
    desk.store.add_report(study.id, row, 1, 0.0)
    desk.store.add_report(study.id, row, 1, 0.0)
    assert desk.store.rows(tables.reports, study.id) == [{"study_id": study.id, **row}]


def test_a_waiting_trial_is_claimed_by_one(desk, place):
    """On SQLite as Optuna opens it, two processes both claim it."""
    study = desk.begin()
    ids = [desk.store.storage.create_new_trial(study.id, create_trial(state=TrialState.WAITING)) for _ in range(20)]
    claims = []

    def claim(storage):
        claims.extend(each for each in ids if storage.set_trial_state_values(each, TrialState.RUNNING))

    storages = [place.open_writer(Fence()) for _ in range(3)]
    assert together(*(lambda each=each: claim(each) for each in storages)) == []
    assert sorted(claims) == ids


def test_an_end_that_was_written_is_not_overwritten(desk, place):
    """On SQLite as Optuna opens it, a reaper overwrites COMPLETE with FAIL, and both are told that they succeeded."""
    study = desk.begin()
    others = [place.open_writer(Fence()) for _ in range(2)]
    for _ in range(20):
        trial = desk.store.storage.create_new_trial(study.id)
        ends = ((TrialState.COMPLETE, [0.5]), (TrialState.FAIL, None))
        works = [lambda at=at: others[at].set_trial_state_values(trial, *ends[at]) for at in range(2)]  # noqa: B023
        assert [type(each) for each in together(*works)] == [UpdateFinishedTrialError]


def test_readers_and_a_writer_do_not_stop_one_another(desk, place):
    study = desk.begin()
    written = threading.Event()

    def write():
        try:
            for _ in range(40):
                desk.store.add_event(study.id, "kind", "text")
        finally:
            written.set()

    def read():
        reader = Store(place.open_reader())
        while not written.is_set():
            reader.rows(tables.events, study.id)
            reader.trials(study.id)

    assert together(write, read, read, read) == []


def test_two_writers_lose_no_update(desk, place):
    """They do where one reads what the other is about to change."""
    study = desk.begin()
    trial = desk.store.storage.create_new_trial(study.id)
    storages = [place.open_writer(Fence()) for _ in range(2)]

    def write(storage, name):
        for at in range(15):
            storage.set_trial_user_attr(trial, f"{name}{at}", at)

    assert together(*(lambda at=at: write(storages[at], at) for at in range(2))) == []
    assert len(desk.store.storage.get_trial(trial).user_attrs) == 30


def test_what_sees_the_storage_sees_no_sql_in_an_error(desk):
    with (
        pytest.raises(Exception, match="parameters hidden due to hide_parameters=True"),
        desk.store.engine.begin() as on,
    ):
        on.execute(text("INSERT INTO nothing VALUES (:secret)"), {"secret": "canary"})


def test_optuna_tells_of_no_study_and_no_trial_on_standard_error(place):
    optuna.logging.set_verbosity(optuna.logging.INFO)
    place.open_writer(Fence())
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR


def test_a_storage_that_was_sent_away_opens_the_same_database(desk, place):
    study = desk.begin()
    for sent in (
        pickle.loads(pickle.dumps(desk.store.storage)),
        cloudpickle.loads(cloudpickle.dumps(desk.store.storage)),
    ):
        assert sent.get_study_name_from_id(study.id) == "study"
        sent.engine.dispose()


# -- the fence ---------------------------------------------------------------------------------------------------------


def test_a_stale_driver_raises_and_changes_no_row(desk, place):
    study = desk.begin()
    agenda = desk.agenda(study)
    assignment = agenda.next()
    other = Desk(desk.folder, place=place)
    newer = other.agenda(other.store.study("study"))
    before = all_rows(other.store)
    store, trial = desk.store, agenda.ledger.trials[0]._trial_id
    writes = [
        agenda.ledger.ask,
        lambda: agenda.ledger.adopt(assignment.key, "resumed"),
        lambda: agenda.ledger.event("kind", "text"),
        lambda: store.set_result(study.id, {}),
        lambda: store.storage.set_trial_user_attr(trial, "key", 1),
        lambda: store.storage.set_trial_state_values(trial, TrialState.FAIL),
        lambda: store.storage.set_trial_intermediate_value(trial, 1, 0.5),
        lambda: store.storage.set_study_user_attr(study.id, "key", 1),
        lambda: store.storage.delete_study(study.id),
    ]
    for write in writes:
        with pytest.raises(StudyHeld, match=r"Another process took this study over \(epoch 2\)"):
            write()
    assert all_rows(other.store) == before
    assert newer.next().key == assignment.key, "the newer one still writes"


def test_a_driver_of_another_study_in_the_same_database_is_none_of_its_business(desk, place):
    agenda = desk.agenda(desk.begin("one"))
    other = Desk(desk.folder, place=place)
    other.agenda(other.begin("two"))
    assert agenda.next().number == 0


def test_epochs_count_the_drivers_of_a_study(desk):
    study = desk.begin()
    assert [desk.ledger(study).epoch for _ in range(3)] == [1, 2, 3]
    assert {row["pid"] for row in desk.store.sessions(study.id)} == {os.getpid()}


def test_a_driver_whose_study_was_deleted_says_so_and_writes_nothing(desk, place):
    """optuna-dashboard lets anybody delete a study, also while it runs."""
    agenda = desk.agenda(desk.begin())
    agenda.next()
    optuna.delete_study(study_name="study", storage=place.url)
    before = all_rows(Store(place.open_reader()))
    with pytest.raises(StudyDeleted, match=r"The study was deleted\. Its folder is kept"):
        agenda.ledger.event("kind", "text")
    assert all_rows(Store(place.open_reader())) == before


def test_a_driver_does_not_write_into_the_study_that_got_its_number(desk, place):
    """SQLite gives the number of a deleted study to the next one."""
    study = desk.begin()
    with place.hold("study") as hold:
        ledger = desk.ledger(study)
        desk.fence.hold = hold
        optuna.delete_study(study_name="study", storage=place.url)
        optuna.create_study(study_name="other", storage=place.url)
        with pytest.raises(StudyDeleted, match="The study was deleted"):
            ledger.event("kind", "text")


def test_a_new_study_has_nothing_of_a_deleted_one(desk, place, tmp_path):
    study = desk.begin()
    desk.work(study)
    optuna.delete_study(study_name="study", storage=place.url)
    later = Desk(tmp_path / "later", place=place)
    later.folder.mkdir()
    begun = later.begin()
    assert all(later.store.rows(each, begun.id) == [] for each in (tables.reports, tables.sessions, tables.events))


# -- away --------------------------------------------------------------------------------------------------------------


def test_a_probe_asks_below_the_fence(desk):
    """It looks whether the database is back; that the lock is to be taken again comes after it."""

    class Closed(Fence):
        def check(self, connection):
            raise LockLost("gone")

    desk.begin()
    desk.fence.__class__ = Closed
    with pytest.raises(LockLost, match="gone"):
        desk.store.names()
    assert probe(desk.store.storage)


def test_what_the_database_said_is_told_in_its_own_words():
    said, wrapped = sqlite3.OperationalError("disk I/O error"), StorageInternalError("An exception is raised.")
    wrapped.__cause__ = said
    assert words_of(wrapped) == "disk I/O error"
    assert words_of(OSError(28, "No space left on device", "/a/file")) == "No space left on device"


def test_an_error_that_is_no_trouble_of_the_database_stays_what_it_is(desk):
    with pytest.raises(Exception, match="no_such_table") as caught, desk.store.engine.begin() as connection:
        connection.execute(text("SELECT * FROM no_such_table"))
    assert not isinstance(caught.value, DatabaseAway | BadInput)
    assert not is_away(caught.value)
    with pytest.raises(KeyboardInterrupt), desk.store.engine.begin():
        raise KeyboardInterrupt


# -- readers -----------------------------------------------------------------------------------------------------------


def test_a_reader_sees_what_is_committed_and_cannot_write(desk, place):
    study = desk.begin()
    reader = Store(place.open_reader())
    with desk.store.engine.begin() as connection:
        connection.execute(text("UPDATE studies SET study_name = 'other'"))
        assert reader.names() == ["study"], "what is not committed is not seen, and nobody waits"
    assert reader.names() == ["other"]
    with pytest.raises((DatabaseAway, StorageInternalError)) as caught:
        reader.storage.set_study_user_attr(study.id, "key", 1)
    assert "read" in str(caught.value.__cause__), "readonly, or read-only"
    assert desk.store.storage.get_study_user_attrs(study.id).get("key") is None


def test_an_open_reader_does_not_stop_the_writer(desk, place):
    study = desk.begin()
    reader = Store(place.open_reader())
    with reader.engine.connect() as connection:
        connection.execute(text("SELECT * FROM studies")).fetchall()
        desk.store.add_event(study.id, "kind", "text")
    assert [row["text"] for row in reader.rows(tables.events, study.id)] == ["text"]


def test_a_study_of_optunas_own_is_no_study_of_ours(desk, place):
    desk.store.storage.create_new_study([StudyDirection.MINIMIZE], "foreign")
    desk.begin("ours")
    assert desk.store.names() == ["ours"]
    assert place.names() == {"ours", "foreign"}
    with pytest.raises(BadInput, match=r"The study 'foreign' was not begun by deepmine-auto"):
        desk.store.study("foreign")


def test_a_database_of_optunas_alone_has_no_study_of_ours(place):
    optuna.create_study(study_name="foreign", storage=place.url)
    assert Store(place.open_reader()).names() == []
    assert place.look().endswith("of Optuna alone")


def test_what_can_be_kept_is_told_without_making_anything(place):
    assert place.look().endswith("new")
    assert place.look().endswith("new")
    assert place.names() == set()
    place.open_writer(Fence())
    assert place.look().endswith("schema 0002")
