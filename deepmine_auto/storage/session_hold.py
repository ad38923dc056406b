"""The lock of a study in PostgreSQL: an advisory lock of a session that does nothing else.

A session can be lost while its process lives. So every transaction of a driver holds a second lock of the study,
shared, and looks whether the session is alive; whoever takes the study waits for that second lock once. What was begun
before has then ended, and what begins later finds its session gone.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import psycopg
from psycopg.errors import InsufficientPrivilege, LockNotAvailable
from sqlalchemy import Connection, text

from deepmine_auto.errors import DatabaseAway, StudyHeld
from deepmine_auto.storage.engine import LockLost, words_of

SECONDS_TO_END = 10.0
"""How long the ending of a session may take: another's, or our own that was lost."""

WAIT = "1s"
"""For how long a lock is waited for: the server may not have noticed yet that its holder is gone."""


class Connects(Protocol):
    """What a hold needs of a database."""

    def connect(self, **settings: str) -> psycopg.Connection[Any]:
        """A connection that commits by itself, with settings of the server."""


def lock_key(*what: str) -> int:
    """The number, signed and of 64 bits, by which PostgreSQL knows a lock."""
    name = "/".join(("deepmine-auto", *what)).encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big", signed=True)


@contextmanager
def held(database: Connects, study: str, take_over: bool = False) -> Iterator[SessionHold]:
    """Hold a study by an advisory lock; `take_over` ends the session that has it. Raises StudyHeld, DatabaseAway."""
    hold = SessionHold(database, study)
    hold.take(take_over)
    try:
        yield hold
    finally:
        hold.session.close()


class SessionHold:
    """A held study."""

    session: psycopg.Connection[Any]
    pid: int | None = None

    def __init__(self, database: Connects, study: str) -> None:
        self.database, self.study = database, study
        self.key, self.writing = lock_key("study", study), lock_key("writing", study)

    def take(self, take_over: bool = False) -> None:
        """Take the lock, and wait until nobody writes any more who had it. Raises StudyHeld, DatabaseAway."""
        try:
            session = self.database.connect(lock_timeout=WAIT)
            try:
                session.execute(END_LOST, [self.pid])
                self._acquire(session, self.key, take_over)
                self._acquire(session, self.writing, take_over)
                session.execute("SELECT pg_advisory_unlock(%s)", [self.writing])
            except BaseException:
                session.close()
                raise
        except psycopg.Error as error:
            what = f"The lock of the study '{self.study}' cannot be taken: {words_of(error)}."
            raise DatabaseAway(what, "Look whether the database runs.") from error
        self.session, self.pid = session, session.info.backend_pid

    def check(self, connection: Connection) -> None:
        """Raise LockLost unless the session with the lock lives; nobody else takes it before the transaction ends."""
        connection.execute(SHARED, {"writing": self.writing})
        if not connection.execute(ALIVE, {"pid": self.pid, **_parts(self.key)}).scalar():
            raise LockLost(f"The lock of the study '{self.study}' was lost with its connection.")

    def regain(self) -> None:
        """Take the lock again if its session is gone. Raises StudyHeld if another process has it, DatabaseAway."""
        try:
            self.session.execute("SELECT 1")
        except psycopg.Error:
            self.session.close()
            self.take()

    def _acquire(self, session: psycopg.Connection[Any], key: int, take_over: bool) -> None:
        until = time.monotonic() + SECONDS_TO_END
        while not _locked(session, key):
            if key == self.writing and self.pid:  # the study is ours again: what we had begun has not ended yet
                raise self._lost("written")
            holders = session.execute(HOLDERS, {**_parts(key), "me": session.info.backend_pid}).fetchall()
            lost = self.pid in {pid for pid, *_ in holders}  # our own session: a busy server takes its time
            late = time.monotonic() > until
            if lost and late:
                raise self._lost("held")
            if late or (holders and not (take_over or lost)):  # without a holder, it has just let go
                raise self._refusal(holders)
            if take_over:
                self._end(session, holders)

    def _end(self, session: psycopg.Connection[Any], holders: list[tuple[Any, ...]]) -> None:
        try:
            for pid, *_ in holders:
                session.execute("SELECT pg_terminate_backend(%s)", [pid])
        except InsufficientPrivilege as error:
            raise self._refusal(holders, "It is another user's: ask them to end it.") from error

    def _lost(self, what: str) -> DatabaseAway:
        told = f"The study '{self.study}' is still being {what} over a connection that was lost."
        return DatabaseAway(told, "The server ends that within a minute.")

    def _refusal(self, holders: list[tuple[Any, ...]], remedy: str = "") -> StudyHeld:
        remedy = remedy or "Wait for it, end it, or `resume` the study with --take-over."
        return StudyHeld(f"The study '{self.study}' is held by {_words(holders)}.", remedy)


def _words(holders: list[tuple[Any, ...]]) -> str:
    for _, name, since in holders:
        if name:  # another user's is hidden
            return f"{name.removeprefix('deepmine-auto ')}, since {since:%Y-%m-%d %H:%M}"
    return "another process"


def _locked(session: psycopg.Connection[Any], key: int) -> bool:
    try:
        session.execute("SELECT pg_advisory_lock(%s)", [key])
    except LockNotAvailable:
        return False
    return True


def _parts(key: int) -> dict[str, int]:
    """A lock's number as `pg_locks` shows it: in two halves."""
    return {"high": key >> 32 & 0xFFFFFFFF, "low": key & 0xFFFFFFFF}


_OF_KEY = (
    "locktype = 'advisory' AND granted AND objsubid = 1"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)

SHARED = text("SELECT pg_advisory_xact_lock_shared(:writing)")

ALIVE = text(
    f"SELECT EXISTS (SELECT FROM pg_locks WHERE pid = :pid AND {_OF_KEY}"
    " AND classid::bigint = :high AND objid::bigint = :low)"
)

HOLDERS = (
    "SELECT pid, application_name, backend_start FROM pg_locks LEFT JOIN pg_stat_activity USING (pid)"
    f" WHERE pid <> %(me)s AND {_OF_KEY} AND classid::bigint = %(high)s AND objid::bigint = %(low)s"
)

END_LOST = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE pid = %s AND application_name = current_setting('application_name')"
)
"""For a minute the server believes in a session whose connection was lost, and keeps its lock for it."""
