"""Engines: who may write, who may read, and what is no place for a study."""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import optuna
import pytest
from fakes import Desk
from optuna.study import StudyDirection
from sqlalchemy import text

from deepmine_auto.errors import BadInput, DatabaseAway, StudyHeld
from deepmine_auto.objectives import Objective
from deepmine_auto.storage import engine, tables
from deepmine_auto.storage.engine import Fence, file_lock, file_of, filesystem_of, open_reader, open_writer
from deepmine_auto.storage.store import Store


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def pragma(storage, name):
    with storage.engine.connect() as connection:
        return connection.execute(text(f"PRAGMA {name}")).scalar()


# -- the writer --------------------------------------------------------------------------------------------------------


def test_the_writer_is_set_right(desk):
    storage = desk.store.storage
    assert pragma(storage, "journal_mode") == "wal"
    assert pragma(storage, "synchronous") == 2
    assert pragma(storage, "busy_timeout") == engine.BUSY_MILLISECONDS


def test_each_transaction_of_the_writer_takes_the_write_lock_at_once(desk):
    other = sqlite3.connect(desk.folder / "studies.db", timeout=0, isolation_level=None)
    with desk.store.engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")


def test_two_writers_lose_no_update(desk):
    """Optuna's defaults do: both read, then both write what they read plus one."""
    study = desk.begin()
    stores = [Store(open_writer(desk.folder / "studies.db", Fence())) for _ in range(2)]

    def add(store):
        for _ in range(20):
            store.add_event(study.id, "kind", "text")

    threads = [threading.Thread(target=add, args=(each,)) for each in stores]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [row["id"] for row in desk.store.rows(tables.events, study.id)] == list(range(1, 41))


CREATE = """
import sys
from pathlib import Path
from deepmine_auto.storage.engine import Fence, open_writer
from deepmine_auto.storage.store import Store
from deepmine_auto.objectives import Objective
store = Store(open_writer(Path(sys.argv[1]), Fence()))
spec = {"task": "t", "seed": 0, "space_name": "s", "fingerprint": "f"}
store.create_study(sys.argv[2], [Objective("f", "maximize")], "folder", spec)
"""


def test_four_processes_that_create_one_file_all_succeed(tmp_path):
    file = tmp_path / "deep" / "studies.db"
    command = [sys.executable, "-c", CREATE, str(file)]
    begun = [subprocess.Popen([*command, f"study{at}"], stderr=subprocess.PIPE, text=True) for at in range(4)]
    told = [each.communicate()[1] for each in begun]
    assert [each.returncode for each in begun] == [0] * 4, told
    assert sorted(Store(open_reader(file)).names()) == [f"study{at}" for at in range(4)]


@pytest.mark.parametrize("name", ["a b.db", "50%20.db", "{x}.db", "what?.db", "#1.db", "ä.db"])
def test_any_file_name_is_the_file_that_is_written_and_read(tmp_path, name):
    Desk(tmp_path).begin()
    (tmp_path / "odd").mkdir()
    file = tmp_path / "odd" / name
    spec = {"task": "t", "seed": 0, "space_name": "s", "fingerprint": "f"}
    Store(open_writer(file, Fence())).create_study("one", [Objective("f", "maximize")], "folder", spec)
    assert {each.name.removesuffix("-wal").removesuffix("-shm") for each in file.parent.iterdir()} == {
        name,
        f"{name}.lock",
    }
    assert Store(open_reader(file)).names() == ["one"]


def test_a_file_that_cannot_be_made_is_told_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatabaseAway, match=r"cannot be opened: .*\. Check path and rights\."):
        open_writer(tmp_path / "file" / "studies.db", Fence())


# -- the fence ---------------------------------------------------------------------------------------------------------


def test_a_stale_driver_raises_and_changes_no_row(desk):
    study = desk.begin()
    agenda = desk.agenda(study)
    assignment = agenda.next()
    other = Desk(desk.folder)
    newer = other.agenda(other.store.study("study"))
    with sqlite3.connect(desk.folder / "studies.db") as connection:
        before = list(connection.iterdump())
    store = desk.store
    writes = [
        lambda: agenda.ledger.ask(),
        lambda: agenda.ledger.adopt(assignment.key, "lost"),
        lambda: agenda.ledger.event("kind", "text"),
        lambda: store.set_result(study.id, {}),
        lambda: store.storage.set_trial_user_attr(agenda.ledger.trials[0]._trial_id, "key", 1),
        lambda: store.storage.set_trial_state_values(agenda.ledger.trials[0]._trial_id, optuna.trial.TrialState.FAIL),
        lambda: store.storage.set_trial_intermediate_value(agenda.ledger.trials[0]._trial_id, 1, 0.5),
        lambda: store.storage.set_study_user_attr(study.id, "key", 1),
    ]
    for write in writes:
        with pytest.raises(StudyHeld, match=r"Another process took this study over \(epoch 2\)"):
            write()
    with sqlite3.connect(desk.folder / "studies.db") as connection:
        assert list(connection.iterdump()) == before
    assert newer.next().key == assignment.key, "the newer one still writes"


def test_a_driver_of_another_study_in_the_same_file_is_none_of_its_business(desk):
    agenda = desk.agenda(desk.begin("one"))
    other = Desk(desk.folder)
    other.agenda(other.begin("two"))
    assert agenda.next().number == 0


def test_epochs_count_the_drivers_of_a_study(desk):
    study = desk.begin()
    assert [desk.ledger(study).epoch for _ in range(3)] == [1, 2, 3]
    assert {row["pid"] for row in desk.store.sessions(study.id)} == {os.getpid()}


def test_a_held_lock_is_seen_by_others_and_let_go_at_the_end(tmp_path):
    refused = pytest.raises(BlockingIOError, match="unavailable")
    with file_lock(tmp_path / "lock", wait=False), refused, file_lock(tmp_path / "lock", wait=False):
        pass
    with file_lock(tmp_path / "lock", wait=False):
        pass


# -- readers -----------------------------------------------------------------------------------------------------------


def test_a_reader_reads_beside_a_writer_and_cannot_write(desk):
    study = desk.begin()
    reader = Store(open_reader(desk.folder / "studies.db"))
    with desk.store.engine.begin() as connection:
        connection.execute(text("UPDATE studies SET study_name = 'other'"))
        assert reader.names() == ["study"], "what is not committed is not seen, and nobody waits"
    assert reader.names() == ["other"]
    with pytest.raises(optuna.exceptions.StorageInternalError) as caught:
        reader.storage.set_study_user_attr(study.id, "key", 1)
    assert "readonly" in str(caught.value.__cause__)


def test_a_reader_does_not_stop_the_writer(desk):
    study = desk.begin()
    reader = Store(open_reader(desk.folder / "studies.db"))
    with reader.engine.connect() as connection:
        connection.execute(text("SELECT * FROM studies")).fetchall()
        desk.store.add_event(study.id, "kind", "text")


def test_a_reader_needs_no_files_beside_the_database(desk):
    desk.begin()
    desk.store.engine.dispose()
    shutil.copy(desk.folder / "studies.db", desk.folder / "copy.db")
    assert not (desk.folder / "copy.db-wal").exists()
    assert Store(open_reader(desk.folder / "copy.db")).names() == ["study"]


def test_a_reader_makes_no_file(tmp_path):
    with pytest.raises(BadInput, match=r"There is no study database at .*none\.db\. Name it with --storage"):
        open_reader(tmp_path / "none.db")
    assert not list(tmp_path.iterdir())


def test_a_database_of_something_else_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE birds (name TEXT)")
    with pytest.raises(BadInput, match=r"other\.db is no study database\. Name it with --storage"):
        open_reader(tmp_path / "other.db")


def test_a_torn_database_is_told_in_a_sentence(desk):
    file = desk.folder / "torn.db"
    file.write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    with pytest.raises(DatabaseAway, match=r"torn\.db cannot be read: .*\. Check path and rights\."):
        open_reader(file)
    with pytest.raises(DatabaseAway, match=r"torn\.db cannot be opened: .*\. Check path and rights\."):
        open_writer(file, Fence())


def test_a_study_of_optunas_own_is_no_study_of_ours(desk):
    desk.store.storage.create_new_study([StudyDirection.MINIMIZE], "foreign")
    desk.begin("ours")
    assert desk.store.names() == ["ours"]
    assert desk.store.exists("foreign")
    with pytest.raises(BadInput, match=r"The study 'foreign' was not begun by deepmine-auto"):
        desk.store.study("foreign")


def test_a_file_of_optunas_alone_has_no_study_of_ours(tmp_path):
    optuna.create_study(study_name="foreign", storage=f"sqlite:///{tmp_path / 'optuna.db'}")
    assert Store(open_reader(tmp_path / "optuna.db")).names() == []


# -- what is no place for a study --------------------------------------------------------------------------------------


def test_a_path_and_a_url_mean_the_same_file(tmp_path, monkeypatch):
    assert file_of(f"sqlite:///{tmp_path}/a.db") == file_of(f"{tmp_path}/a.db") == tmp_path / "a.db"
    monkeypatch.chdir(tmp_path)
    assert file_of("a.db") == tmp_path / "a.db"


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"is a folder\. Name a file in it, such as studies\.db"):
        file_of(str(tmp_path))


def test_what_is_no_sqlite_file_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "notes.txt").write_text("a shopping list of some length")
    with pytest.raises(BadInput, match=r"notes\.txt is no SQLite database\. Name another file"):
        file_of(str(tmp_path / "notes.txt"))
    assert (tmp_path / "notes.txt").read_text().startswith("a shopping")


def test_an_empty_file_may_become_a_database(tmp_path):
    (tmp_path / "new.db").touch()
    assert file_of(str(tmp_path / "new.db")) == tmp_path / "new.db"


def test_other_databases_are_not_supported_yet():
    with pytest.raises(BadInput, match=r"'postgresql' storage is not supported\. Give a file or sqlite:///FILE"):
        file_of("postgresql://host/name")


MOUNTS = """\
overlay / overlay rw 0 0
server:/x /home/me/my\\040share nfs4 rw 0 0
tmpfs /home/me/my\\040share/fast tmpfs rw 0 0
//host/y /mnt/y cifs rw 0 0
/dev/sda /covered ext4 rw 0 0
server:/z /covered nfs rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/home/me", "overlay"),
        ("/home/me/my share", "nfs4"),
        ("/home/me/my share/deep/er", "nfs4"),
        ("/home/me/my share/fast", "tmpfs"),
        ("/mnt/yes", "overlay"),
        ("/mnt/y/z", "cifs"),
        ("/covered", "nfs"),
    ],
)
def test_the_filesystem_of_a_folder_is_that_of_the_nearest_mount(tmp_path, folder, kind):
    (tmp_path / "mounts").write_text(MOUNTS)
    assert filesystem_of(Path(folder), str(tmp_path / "mounts")) == kind


def test_where_the_system_does_not_say_nothing_is_refused(tmp_path):
    assert filesystem_of(tmp_path, str(tmp_path / "none")) == ""


def test_a_network_filesystem_is_refused_through_a_link_too(tmp_path, monkeypatch):
    share = tmp_path / "share"
    share.mkdir()
    (tmp_path / "link").symlink_to(share)
    monkeypatch.setattr(engine, "filesystem_of", lambda folder: "nfs4" if folder == share else "ext4")
    for folder in (share, tmp_path / "link"):
        with pytest.raises(BadInput, match=r"lies on a network filesystem \(nfs4\).*Use a local disk"):
            file_of(str(folder / "studies.db"))
    assert file_of(str(tmp_path / "studies.db"))
