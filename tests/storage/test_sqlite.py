"""Studies in a file: set right, and told in a sentence when it is damaged, full, gone or not to be written."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from fakes import Desk
from sqlalchemy import event, text

from deepmine_auto.disk import file_lock
from deepmine_auto.errors import BadInput, DatabaseAway, DeepmineError
from deepmine_auto.objectives import Objective
from deepmine_auto.storage import sqlite, tables
from deepmine_auto.storage.away import is_away, probe
from deepmine_auto.storage.engine import Fence
from deepmine_auto.storage.sqlite import SqliteFile, file_of
from deepmine_auto.storage.store import Store
from deepmine_auto.terminal.looking import see_all


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def pragma(storage, name):
    with storage.engine.connect() as connection:
        return connection.execute(text(f"PRAGMA {name}")).scalar()


def test_the_writer_is_set_right(desk):
    storage = desk.store.storage
    assert pragma(storage, "journal_mode") == "wal"
    assert pragma(storage, "synchronous") == 2
    assert pragma(storage, "busy_timeout") == sqlite.BUSY_MILLISECONDS


def test_every_commit_of_the_writer_reaches_the_disk_however_sqlite_was_built(tmp_path, monkeypatch):
    """Some systems build it so that a commit to a write-ahead log may be lost in a power cut."""
    stock = sqlite._connect

    def careless(*asked):
        connection = stock(*asked)
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    monkeypatch.setattr(sqlite, "_connect", careless)
    assert pragma(Desk(tmp_path).store.storage, "synchronous") == 2


def test_each_transaction_of_the_writer_takes_the_write_lock_at_once(desk):
    other = sqlite3.connect(desk.folder / "studies.db", timeout=0, isolation_level=None)
    with desk.store.engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")


@pytest.mark.parametrize("name", ["a b.db", "50%20.db", "{x}.db", "what?.db", "#1.db", "ä.db"])
def test_any_file_name_is_the_file_that_is_written_and_read(tmp_path, name):
    file = tmp_path / "odd" / name
    spec = {"task": "t", "seed": 0, "space_name": "s", "fingerprint": "f"}
    Store(SqliteFile(file).open_writer(Fence())).create_study("one", [Objective("f", "maximize")], "folder", spec)
    made = {each.name.removesuffix("-wal").removesuffix("-shm") for each in file.parent.iterdir()}
    assert made == {name, f"{name}.lock"}
    assert SqliteFile(file).names() == {"one"}


def test_a_database_is_made_by_one_at_a_time(tmp_path):
    opening = threading.Thread(target=SqliteFile(tmp_path / "studies.db").open_writer, args=(Fence(),))
    with file_lock(tmp_path / "studies.db.lock"):
        opening.start()
        opening.join(2.0)
        assert not (tmp_path / "studies.db").exists()
    opening.join()
    assert (tmp_path / "studies.db").exists()


# -- nothing to read or write ------------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_made_is_told_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatabaseAway, match=r"cannot be opened: .*\. Check path and rights"):
        SqliteFile(tmp_path / "file" / "studies.db").open_writer(Fence())


def test_a_reader_makes_no_file(tmp_path):
    with pytest.raises(BadInput, match=r"There is no study database at .*none\.db\. Name it with --storage"):
        SqliteFile(tmp_path / "none.db").open_reader()
    assert not list(tmp_path.iterdir())


def test_a_reader_needs_no_files_beside_the_database(desk):
    desk.begin()
    desk.store.engine.dispose()
    shutil.copy(desk.folder / "studies.db", desk.folder / "copy.db")
    assert not (desk.folder / "copy.db-wal").exists()
    assert Store(SqliteFile(desk.folder / "copy.db").open_reader()).names() == ["study"]


def test_a_database_of_something_else_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE birds (name TEXT)")
    with pytest.raises(BadInput, match=r"other\.db is no study database\. Name it with --storage"):
        SqliteFile(tmp_path / "other.db").open_reader()


@contextmanager
def as_another_user():
    """Be a user whom rights stop, if we are one whom they do not, in a folder that both may see."""
    root = os.geteuid() == 0
    folder = Path(tempfile.mkdtemp())
    try:
        if root:
            os.chown(folder, 65534, -1)
            os.seteuid(65534)
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)
        shutil.rmtree(folder)


def test_a_folder_that_may_not_be_written_is_told_in_a_sentence():
    with as_another_user() as folder:
        folder.chmod(0o500)
        place = SqliteFile(folder / "studies.db")
        with pytest.raises(
            DatabaseAway, match=r"studies\.db cannot be opened: Permission denied\. Check path and rights"
        ):
            place.open_writer(Fence())
        with pytest.raises(
            DatabaseAway, match=r"studies\.db cannot be used: Permission denied\. Check path and rights"
        ):
            place.look()
        with (
            pytest.raises(DatabaseAway, match=r"study\.lock cannot be opened: Permission denied\."),
            place.hold("study"),
        ):
            pass


def test_a_file_that_may_not_be_written_is_told_in_a_sentence():
    with as_another_user() as folder:
        Desk(folder).store.engine.dispose()
        (folder / "studies.db").chmod(0o400)
        with pytest.raises(DatabaseAway, match=r"cannot be used: attempt to write a readonly database\. Check path"):
            SqliteFile(folder / "studies.db").open_writer(Fence())


def test_a_file_that_may_not_be_read_is_told_in_a_sentence():
    with as_another_user() as folder:
        (folder / "studies.db").touch(0o200)
        with pytest.raises(BadInput, match=r"studies\.db cannot be read: Permission denied\. Check path and rights"):
            file_of(str(folder / "studies.db"))


# -- damage ------------------------------------------------------------------------------------------------------------


def sentences(use):
    """The error that using something ends with, if it is one of ours; any other is raised."""
    try:
        use()
    except DeepmineError as error:
        return [error]
    return []


def test_a_torn_database_is_told_in_a_sentence(desk):
    file = desk.folder / "torn.db"
    file.write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    for use in (SqliteFile(file).open_reader, SqliteFile(file).look, lambda: SqliteFile(file).open_writer(Fence())):
        with pytest.raises(BadInput, match=r"torn\.db is damaged: file is not a database\. Put a copy back, or"):
            use()


def test_a_database_that_was_cut_off_anywhere_is_told_in_a_sentence_or_read(desk):
    desk.work(desk.begin())
    desk.store.engine.dispose()
    whole = (desk.folder / "studies.db").read_bytes()
    told = []
    for at in range(20):
        file = desk.folder / f"cut{at}.db"
        file.write_bytes(whole[: 16 + at * len(whole) // 20])
        for use in (lambda: see_all(SqliteFile(file)), lambda: Desk(desk.folder, place=SqliteFile(file))):  # noqa: B023
            told += sentences(use)
    assert not any(map(is_away, told)), "it would be waited for"
    assert any("is damaged: database disk image is malformed. Put a copy back" in str(each) for each in told), told


def test_damage_that_is_met_while_a_study_is_read_is_told_in_a_sentence(desk):
    study = desk.begin()
    for _ in range(300):
        desk.store.add_event(study.id, "kind", "x" * 200)
    desk.store.engine.dispose()
    file = desk.folder / "studies.db"
    whole = bytearray(file.read_bytes())
    at = whole.rindex(b"x" * 200) // 4096 * 4096
    whole[at : at + 4096] = b"\xff" * 4096
    file.write_bytes(whole)
    reader = Store(SqliteFile(file).open_reader())
    with pytest.raises(BadInput, match=r"is damaged: database disk image is malformed\. Put a copy back, or save what"):
        reader.rows(tables.events, study.id)


# -- days that are bad and pass ----------------------------------------------------------------------------------------


def test_a_file_that_was_deleted_takes_no_more_rows_and_is_not_made_anew(desk):
    """SQLite itself writes on into the deleted file, and says nothing."""
    study = desk.begin()
    desk.store.add_event(study.id, "kind", "before")
    file = desk.folder / "studies.db"
    file.rename(desk.folder / "elsewhere.db")
    with pytest.raises(DatabaseAway, match=r"studies\.db cannot be used: unable to open database file") as caught:
        desk.store.add_event(study.id, "kind", "lost")
    assert is_away(caught.value)
    assert not probe(desk.store.storage)
    assert not file.exists()
    (desk.folder / "elsewhere.db").rename(file)
    assert probe(desk.store.storage)
    desk.store.add_event(study.id, "kind", "after")
    assert [row["text"] for row in desk.store.rows(tables.events, study.id)] == ["before", "after"]


def test_a_full_disk_is_away_until_there_is_room(desk):
    study = desk.begin()
    engine = desk.store.engine
    pages = pragma(desk.store.storage, "page_count")

    def limit(connection, _record, _proxy):
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")

    event.listen(engine, "checkout", limit)
    with pytest.raises(DatabaseAway, match=r"cannot be used: database or disk is full\. Check .* free space") as caught:
        desk.store.add_event(study.id, "kind", "x" * 100_000)
    assert is_away(caught.value)
    written = len(desk.store.rows(tables.events, study.id))
    event.remove(engine, "checkout", limit)
    engine.dispose()
    desk.store.add_event(study.id, "kind", "x" * 1000)
    assert len(desk.store.rows(tables.events, study.id)) == written + 1


def test_a_file_that_another_keeps_locked_is_away(desk, monkeypatch):
    monkeypatch.setattr(sqlite, "BUSY_MILLISECONDS", 50)
    desk = Desk(desk.folder)
    other = sqlite3.connect(desk.folder / "studies.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseAway, match=r"cannot be used: database is locked") as caught:
        desk.store.names()
    assert is_away(caught.value)
    other.execute("ROLLBACK")
    assert desk.store.names() == []


KILLED = """
import os, sys
from pathlib import Path
from sqlalchemy import Engine, event
from deepmine_auto.storage.engine import Fence
from deepmine_auto.storage.sqlite import SqliteFile

@event.listens_for(Engine, "before_cursor_execute")
def kill(_connection, _cursor, statement, *_):
    if sys.argv[2] in " ".join(statement.split()):
        os.kill(os.getpid(), 9)

SqliteFile(Path(sys.argv[1])).open_writer(Fence())
"""


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_makes_a_database_leaves_one_that_the_next_makes_whole(tmp_path):
    def schema(file):
        with sqlite3.connect(file) as connection:
            return sorted(map(repr, connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")))

    SqliteFile(tmp_path / "whole.db").open_writer(Fence())
    for at, before in enumerate(("CREATE UNIQUE INDEX", "INSERT INTO version_info", "CREATE TABLE deepmine_events")):
        file = tmp_path / f"killed{at}.db"
        killed = subprocess.run([sys.executable, "-c", KILLED, str(file), before], check=False)
        assert killed.returncode == -9
        SqliteFile(file).open_writer(Fence())
        assert schema(file) == schema(tmp_path / "whole.db")
