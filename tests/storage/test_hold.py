"""One driver a study: who holds it is told, may be ended, and then writes nothing more."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from fakes import Desk
from sqlalchemy import insert

from deepmine_auto.errors import DatabaseAway, StudyHeld
from deepmine_auto.storage import file_hold, sqlite, tables
from deepmine_auto.storage.engine import LockLost
from deepmine_auto.storage.place import held, place_of
from deepmine_auto.storage.sqlite import SqliteFile
from deepmine_auto.storage.store import now

session_hold = pytest.importorskip("deepmine_auto.storage.session_hold")
lock_key, _parts = session_hold.lock_key, session_hold._parts

DRIVER = Path(__file__).with_name("driver.py")


@pytest.fixture
def desk(tmp_path, place):
    """A database with one study, whose desk is no driver."""
    desk = Desk(tmp_path, place=place)
    desk.study = desk.begin()
    return desk


@pytest.fixture
def server_desk(tmp_path, postgres):
    """The same in PostgreSQL."""
    with postgres.database() as name:
        desk = Desk(tmp_path, place=place_of(postgres.url(name)))
        desk.study = desk.begin()
        yield desk


class Driver:
    """A driver in a process of its own."""

    def __init__(self, place, study="study"):
        command = [sys.executable, DRIVER, str(place), study]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, **pipes)
        self.pid = self.process.pid
        assert self.answer() == "held", self.process.communicate()[1]

    def answer(self):
        return self.process.stdout.readline().strip()

    def told(self, what):
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self.answer()


@contextmanager
def driver_of(desk):
    """A driver of the desk's study, which is gone afterwards."""
    driver = Driver(desk.place)
    try:
        yield driver
    finally:
        driver.process.kill()
        driver.process.communicate()


def tried(driver, what):
    """What a driver answers, which may have been ended."""
    try:
        return driver.told(what) or "ended"
    except BrokenPipeError:
        return "ended"


def texts(desk):
    return [row["text"] for row in desk.store.rows(tables.events, desk.study.id)]


def test_a_study_has_one_driver_and_another_is_told_who_that_is(desk):
    with driver_of(desk) as driver:
        held_by = rf"The study 'study' is held by process {driver.pid} on {re.escape(socket.gethostname())}, since 20"
        with pytest.raises(StudyHeld, match=held_by + r".*`resume` .* --take-over"), desk.place.hold("study"):
            pass
        with desk.place.hold("other"):
            pass
        assert driver.told("write") == "write"
    with desk.place.hold("study") as hold:
        assert hold.study == "study"


def test_a_study_is_free_when_its_driver_lets_go(desk):
    with desk.place.hold("study") as hold:
        pass
    with desk.place.hold("study") as again:
        assert again is not hold


def test_a_hold_that_was_not_lost_is_regained_by_doing_nothing(desk):
    with desk.place.hold("study") as hold:
        hold.regain()
        with pytest.raises(StudyHeld, match="is held by process"), desk.place.hold("study"):
            pass


def test_a_driver_that_is_taken_over_writes_nothing_more(desk, monkeypatch):
    monkeypatch.setattr(file_hold, "SECONDS_TO_END", 5.0)
    with driver_of(desk) as driver:
        assert driver.told("write") == "write"
        with desk.place.hold("study", take_over=True) as desk.fence.hold:
            desk.ledger(desk.study)
            left = "ended" if isinstance(desk.place, SqliteFile) else "StudyHeld"
            assert [tried(driver, each) for each in ("write", "regain", "write")] == [left] * 3
            assert texts(desk) == ["text"]
            desk.store.add_event(desk.study.id, "kind", "mine")


@pytest.mark.parametrize("standing", ["idle", "writing"])
def test_a_driver_that_is_stopped_loses_and_changes_no_row_when_it_goes_on(desk, monkeypatch, standing):
    """It is stopped between two writes, or in the middle of one."""
    monkeypatch.setattr(file_hold, "SECONDS_TO_END", 0.2)
    with driver_of(desk) as driver:
        if standing == "writing":
            assert driver.told("open") == "open"
        os.kill(driver.pid, signal.SIGSTOP)
        with desk.place.hold("study", take_over=True) as desk.fence.hold:
            desk.ledger(desk.study)
            before = {name: desk.store.rows(each, desk.study.id) for name, each in tables.metadata.tables.items()}
            os.kill(driver.pid, signal.SIGCONT)
            last = "commit" if standing == "writing" else "write"
            answers = [tried(driver, each) for each in (last, "write", "write")]
            assert not {"commit", "write"} & set(answers), answers
            after = {name: desk.store.rows(each, desk.study.id) for name, each in tables.metadata.tables.items()}
            assert after == before


def test_a_study_whose_driver_is_stopped_while_it_writes_can_be_opened_by_taking_over(desk, monkeypatch):
    """Until then its open transaction keeps everybody else from writing, and so from opening."""
    monkeypatch.setattr(file_hold, "SECONDS_TO_END", 0.2)
    monkeypatch.setattr(sqlite, "BUSY_MILLISECONDS", 1000)
    with driver_of(desk) as driver:
        assert driver.told("open") == "open"
        os.kill(driver.pid, signal.SIGSTOP)
        with held(desk.place, "study", take_over=True) as (store, fence):
            assert fence.hold.study == "study"
            store.add_event(desk.study.id, "kind", "mine")


def test_a_take_over_where_nobody_is_takes_the_study(desk):
    with desk.place.hold("study", take_over=True):
        pass


# -- the file's --------------------------------------------------------------------------------------------------------


def lock_file(folder):
    return folder / "studies.db.study.lock"


@contextmanager
def sleeper(folder, **said):
    """A process that holds the file's lock, and whose line says something else."""
    code = (
        "import fcntl, sys, time; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX); print(1, flush=True)"
    )
    command = [sys.executable, "-c", f"{code}; time.sleep(60)", lock_file(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "1\n"
    lock_file(folder).write_text(json.dumps(said) + "\n" if said else "")
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("said", [{}, {"pid": "x"}])
def test_a_holder_that_does_not_say_who_it_is_holds_too(tmp_path, said):
    place = place_of(str(tmp_path / "studies.db"))
    with sleeper(tmp_path, **said), pytest.raises(StudyHeld, match="is held by another process"), place.hold("study"):
        pass


def test_the_process_that_has_the_lock_is_ended_and_not_the_one_that_the_file_names(tmp_path):
    place = place_of(str(tmp_path / "studies.db"))
    with (
        subprocess.Popen(["sleep", "60"]) as innocent,
        sleeper(tmp_path, pid=innocent.pid, host="x", started="y") as holder,
    ):
        with place.hold("study", take_over=True):
            assert holder.wait(10) == -signal.SIGTERM
        assert innocent.poll() is None
        innocent.kill()


def test_a_holder_that_the_system_does_not_name_is_not_ended(tmp_path, monkeypatch):
    """It may be in another container, or be no process of this system."""
    monkeypatch.setattr(file_hold, "_holder", lambda opened: None)
    place = place_of(str(tmp_path / "studies.db"))
    with sleeper(tmp_path) as holder:
        refused = pytest.raises(StudyHeld, match=r"cannot be ended from here: end it where it runs")
        with refused, place.hold("study", take_over=True):
            pass
        assert holder.poll() is None


@pytest.mark.parametrize("locks", [None, "1: FLOCK ADVISORY WRITE 0 {}", "1: POSIX ADVISORY WRITE {pid} {}"])
def test_a_lock_of_which_the_system_names_no_process_has_no_holder(tmp_path, monkeypatch, locks):
    """/proc may be hidden; the holder may be in another container; a lock of another kind is not ours."""
    table = tmp_path / "locks"
    monkeypatch.setattr(file_hold, "Path", lambda _: table)
    with sleeper(tmp_path) as holder:
        found = lock_file(tmp_path).stat()
        where = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino} 0 EOF"
        if locks:
            table.write_text(locks.format(where, pid=holder.pid))
        with lock_file(tmp_path).open() as opened:
            assert file_hold._holder(opened) is None


def test_a_process_that_has_let_go_meanwhile_is_not_ended(tmp_path, monkeypatch):
    """Its number may be another's by now."""
    place = place_of(str(tmp_path / "studies.db"))
    with subprocess.Popen(["sleep", "60"]) as innocent, sleeper(tmp_path) as holder:
        named = iter([innocent.pid, holder.pid])
        monkeypatch.setattr(file_hold, "_holder", lambda opened: next(named))
        with pytest.raises(StudyHeld, match="is held by"), place.hold("study", take_over=True):
            pass
        assert innocent.poll() is None
        innocent.kill()


def test_a_holder_that_is_gone_before_it_is_looked_for_is_not_ended_twice(tmp_path, monkeypatch):
    dead = subprocess.Popen(["true"])
    dead.wait()
    monkeypatch.setattr(file_hold, "_holder", lambda opened: dead.pid)
    place = place_of(str(tmp_path / "studies.db"))
    refused = pytest.raises(StudyHeld, match=r"is held by another process\. Wait for it")
    with sleeper(tmp_path), refused, place.hold("study", take_over=True):
        pass


def test_a_holder_that_ends_before_its_signal_comes_is_taken_over(tmp_path, monkeypatch):
    place = place_of(str(tmp_path / "studies.db"))
    with sleeper(tmp_path) as holder:

        def too_late(*_):
            holder.kill()
            raise ProcessLookupError

        monkeypatch.setattr(file_hold.signal, "pidfd_send_signal", too_late)
        with place.hold("study", take_over=True) as hold:
            assert hold.study == "study"


def test_a_holder_of_another_user_is_told_and_not_ended(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError

    monkeypatch.setattr(file_hold.signal, "pidfd_send_signal", refused)
    place = place_of(str(tmp_path / "studies.db"))
    told = pytest.raises(StudyHeld, match=r"It is another user's: ask them to end it")
    with sleeper(tmp_path), told, place.hold("study", take_over=True):
        pass


def test_who_holds_a_study_is_told_and_not_who_held_it_before(tmp_path):
    lock_file(tmp_path).write_text(json.dumps({"pid": 1, "host": "x", "started": "y"}) + "\n")
    place = place_of(str(tmp_path / "studies.db"))
    told = pytest.raises(StudyHeld, match=rf"is held by process {os.getpid()} on ")
    with place.hold("study"), told, place.hold("study"):
        pass


def test_a_process_does_not_end_itself(tmp_path):
    place = place_of(str(tmp_path / "studies.db"))
    refused = pytest.raises(StudyHeld, match="cannot be ended from here")
    with place.hold("study"), refused, place.hold("study", take_over=True):
        pass


# -- the session's -----------------------------------------------------------------------------------------------------


def of_session(key):
    """Which backends hold a lock, for `terminate_backends`."""
    low = key & 0xFFFFFFFF
    return f"pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid::bigint = {low})"


def lose_lock(postgres, desk):
    postgres.terminate_backends(desk.place.public.database, of_session(lock_key("study", "study")))


def test_a_driver_whose_lock_was_lost_writes_nothing_until_it_has_it_again(server_desk, postgres):
    desk = server_desk
    with desk.place.hold("study") as hold:
        ledger = desk.ledger(desk.study)
        desk.fence.hold = hold
        lose_lock(postgres, desk)
        with pytest.raises(LockLost, match="The lock of the study 'study' was lost with its connection"):
            desk.store.add_event(desk.study.id, "kind", "too early")
        hold.regain()
        desk.store.add_event(desk.study.id, "kind", "again")
        assert texts(desk) == ["again"]
        assert desk.store.sessions(desk.study.id)[-1]["epoch"] == ledger.epoch, "it is the same driver"


def test_whoever_holds_a_study_without_driving_it_writes_nothing_either_once_the_lock_is_lost(server_desk, postgres):
    """`ensemble` does, and so does `resume` before it is the driver."""
    with held(server_desk.place, "study") as (store, _):
        lose_lock(postgres, server_desk)
        with pytest.raises(LockLost, match="The lock of the study 'study' was lost with its connection"):
            store.add_event(server_desk.study.id, "kind", "too late")
    assert texts(server_desk) == []


def test_a_lock_is_taken_again_from_a_session_in_which_only_the_server_still_believes(server_desk):
    """So it does for a minute after a network was away. Else the driver would be told that it holds its own study."""
    desk = server_desk
    with desk.place.hold("study") as hold, closing(hold.session):
        hold.session = desk.place.connect()
        hold.session.close()
        hold.regain()
        desk.fence.hold = hold
        desk.store.add_event(desk.study.id, "kind", "again")
        assert texts(desk) == ["again"]
        with pytest.raises(StudyHeld, match="is held by process"), desk.place.hold("study"):
            pass


def test_a_lock_is_taken_again_from_a_session_that_a_busy_server_ends_late(server_desk, monkeypatch):
    """It took longer than a lock is waited for, and the driver was told that its own process holds its study."""
    monkeypatch.setattr(session_hold, "END_LOST", "SELECT %s")
    monkeypatch.setattr(session_hold, "WAIT", "100ms")
    desk = server_desk
    with desk.place.hold("study") as hold, closing(hold.session) as lost:
        hold.session = desk.place.connect()
        hold.session.close()
        late = threading.Timer(0.5, lost.close)
        late.start()
        hold.regain()
        late.join()
        desk.fence.hold = hold
        desk.store.add_event(desk.study.id, "kind", "again")
        assert texts(desk) == ["again"]


def test_a_session_that_the_server_does_not_end_is_tried_again_like_a_database_that_is_away(server_desk, monkeypatch):
    for name, value in (("END_LOST", "SELECT %s"), ("WAIT", "100ms"), ("SECONDS_TO_END", 0.3)):
        monkeypatch.setattr(session_hold, name, value)
    with server_desk.place.hold("study") as hold, closing(hold.session):
        hold.session = server_desk.place.connect()
        hold.session.close()
        with pytest.raises(DatabaseAway, match="'study' is still being held over a connection that was lost"):
            hold.regain()


def test_a_lock_that_is_let_go_between_two_looks_is_taken(server_desk, monkeypatch):
    tried = iter([False, True])
    monkeypatch.setattr(session_hold, "_locked", lambda session, key: next(tried, True))
    with server_desk.place.hold("study") as hold:
        assert hold.study == "study"


def test_a_lock_is_taken_again_when_what_was_begun_under_it_has_ended(server_desk, postgres):
    """Until then it is tried again, and nobody is said to hold the study."""
    desk = server_desk
    with desk.place.hold("study") as hold:
        desk.ledger(desk.study)
        desk.fence.hold = hold
        row = {"study_id": desk.study.id, "id": 1, "at": now(), "kind": "kind", "text": "begun before"}
        with desk.store.engine.connect() as connection:
            connection.execute(insert(tables.events).values(**row))
            lose_lock(postgres, desk)
            with pytest.raises(DatabaseAway, match="is still being written over a connection that was lost"):
                desk.fence.regain()
            connection.commit()
        desk.fence.regain()
        assert texts(desk) == ["begun before"]


def test_a_lock_that_another_has_taken_meanwhile_is_not_regained(server_desk, postgres):
    with server_desk.place.hold("study") as hold:
        lose_lock(postgres, server_desk)
        with server_desk.place.hold("study"), pytest.raises(StudyHeld, match="is held by process"):
            hold.regain()
        hold.regain()


def test_a_lock_is_not_taken_while_its_last_holder_still_writes(server_desk, postgres):
    """Else what it had begun would be written after the new driver's first look."""
    desk = server_desk
    with desk.place.hold("study") as hold:
        desk.ledger(desk.study)
        desk.fence.hold = hold
        row = {"study_id": desk.study.id, "id": 1, "at": now(), "kind": "kind", "text": "late"}
        with desk.store.engine.connect() as connection:
            connection.execute(insert(tables.events).values(**row))
            lose_lock(postgres, desk)
            with pytest.raises(StudyHeld, match="is held by process"), desk.place.hold("study"):
                pass
            connection.commit()
        with desk.place.hold("study"), pytest.raises(StudyHeld, match="is held by"):
            desk.fence.regain()


def test_a_lock_that_cannot_be_ended_is_told(server_desk, postgres):
    """It belongs to another user of the server."""
    place = server_desk.place
    low = lock_key("study", "study")
    connection = postgres.superuser(place.public.database)
    connection.execute(f"SELECT pg_advisory_lock({low})")
    for take_over, told in ((False, "held by another process. Wait"), (True, "another user's: ask them to end it")):
        with pytest.raises(StudyHeld, match=told), place.hold("study", take_over=take_over):
            pass
    connection.close()


def test_whoever_holds_another_lock_of_the_same_number_is_not_ended(server_desk, postgres):
    """Numbers are each database's own, and numbers in two halves are others than whole ones."""
    place, key = server_desk.place, lock_key("study", "study").to_bytes(8, "big", signed=True)
    halves = [int.from_bytes(each, "big", signed=True) for each in (key[:4], key[4:])]
    elsewhere = postgres.database()
    with elsewhere as name, place_of(postgres.url(name)).hold("study") as far, closing(place.connect()) as other:
        other.execute("SELECT pg_advisory_lock(%s, %s)", halves)
        with place.hold("study"), place.hold("study", take_over=True):
            for each in (other, far.session):
                assert each.execute("SELECT 1").fetchone() == (1,)


def test_whoever_is_refused_keeps_no_connection(server_desk, postgres):
    name = server_desk.place.public.database
    server_desk.store.engine.dispose()

    def connections():
        return postgres.rows(f"SELECT COUNT(*) FROM pg_stat_activity WHERE datname = '{name}'")[0][0]

    with server_desk.place.hold("study"):
        with pytest.raises(StudyHeld, match="is held by process") as refused, server_desk.place.hold("study"):
            pass
        assert any(connections() == 1 or time.sleep(0.1) for _ in range(50)), refused.value


def test_who_waits_for_a_lock_is_not_taken_for_its_holder(server_desk, postgres):
    place, key = server_desk.place, lock_key("study", "study")
    with closing(postgres.superuser(place.public.database)) as holder, closing(place.connect()) as waiter:
        holder.execute("SELECT pg_advisory_lock(%s)", [key])
        waiting = threading.Thread(target=waiter.execute, args=("SELECT pg_advisory_lock(%s)", [key]))
        waiting.start()
        while not holder.execute("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetchall():
            pass
        with pytest.raises(StudyHeld, match="is held by another process"), place.hold("study"):
            pass
        holder.execute("SELECT pg_advisory_unlock(%s)", [key])
        waiting.join()


def test_a_server_that_is_gone_cannot_give_a_lock():
    pytest.importorskip("psycopg")
    gone = place_of("postgresql://tester@/studies?host=/nowhere")
    told = r"lock of the study 's' cannot be taken: .*No such file or directory\. Look whether the database runs"
    with pytest.raises(DatabaseAway, match=told), gone.hold("s"):
        pass


def test_a_driver_is_known_by_its_process_and_host_on_the_server(server_desk, postgres):
    with server_desk.place.hold("study"):
        name = server_desk.place.public.database
        rows = postgres.rows(f"SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = '{name}'")
        assert rows == [(f"deepmine-auto process {os.getpid()} on {socket.gethostname()}",)]


def test_locks_have_numbers_of_64_bits_that_do_not_change():
    assert lock_key("study", "moods-1124") == 2449177656162840697
    assert _parts(-2) == {"high": 0xFFFFFFFF, "low": 0xFFFFFFFE}
