"""What passes is told from what does not."""

import sqlite3

import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy import exc

from deepmine_auto.errors import BadInput, DatabaseAway, StudyHeld
from deepmine_auto.storage.away import is_away
from deepmine_auto.storage.engine import LockLost, StudyDeleted

FULL = sqlite3.OperationalError("database or disk is full")


def raised(error, cause=None):
    """An error as it looks once it was raised."""
    try:
        raise error from cause
    except Exception as caught:
        return caught


def wrapped(cause, kind=exc.OperationalError, **more):
    return raised(StorageInternalError("during the commit"), raised(kind("SELECT 1", {}, cause, **more), cause))


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        sqlite3.OperationalError("database is locked"),
        sqlite3.OperationalError("database table is locked: studies"),
        sqlite3.OperationalError("database schema is locked: main"),
        sqlite3.OperationalError("locking protocol"),
        sqlite3.OperationalError("attempt to write a readonly database"),
        sqlite3.OperationalError("disk I/O error"),
        sqlite3.OperationalError("unable to open database file"),
        wrapped(FULL),
        exc.OperationalError("SELECT 1", {}, FULL),
        exc.TimeoutError("QueuePool limit of size 3 overflow 0 reached"),
        wrapped(Exception("server closed the connection"), exc.DBAPIError, connection_invalidated=True),
        LockLost("gone"),
        DatabaseAway("away"),
        raised(ValueError("on the way"), LockLost("gone")),
    ],
    ids=repr,
)
def test_what_may_pass_is_away(error):
    assert is_away(error)


@pytest.mark.parametrize(
    "error",
    [
        sqlite3.OperationalError("no such table: studies"),
        sqlite3.DatabaseError("database disk image is malformed"),
        wrapped(sqlite3.OperationalError("no such column: x")),
        wrapped(sqlite3.IntegrityError("UNIQUE constraint failed"), exc.IntegrityError),
        exc.ProgrammingError("SELECT", {}, Exception("syntax")),
        StudyHeld("held"),
        raised(StudyHeld("held"), FULL),
        StudyDeleted("deleted"),
        BadInput("bad"),
        KeyError("x"),
        OSError(28, "No space left on device"),
    ],
    ids=repr,
)
def test_what_will_be_so_tomorrow_is_not_away(error):
    assert not is_away(error)


def test_what_was_seen_on_the_way_to_another_error_says_nothing_of_it():
    """A bug in an error's handler must not be waited for."""
    error = KeyError("a bug")
    error.__context__ = FULL
    assert not is_away(error)


psycopg = pytest.importorskip("psycopg")


@pytest.mark.parametrize(
    ("kind", "away"),
    [
        (psycopg.OperationalError, True),
        (psycopg.errors.AdminShutdown, True),
        (psycopg.errors.CannotConnectNow, True),
        (psycopg.errors.TooManyConnections, True),
        (psycopg.errors.DiskFull, True),
        (psycopg.errors.ReadOnlySqlTransaction, True),
        (psycopg.errors.UniqueViolation, False),
        (psycopg.errors.UndefinedTable, False),
        (psycopg.errors.InFailedSqlTransaction, False),
        (psycopg.errors.NumericValueOutOfRange, False),
    ],
)
def test_errors_of_postgresql_are_told_apart(kind, away):
    error = kind("text")
    assert is_away(error) == away
    wrapper = exc.DBAPIError.instance("SELECT", {}, error, psycopg.Error, dialect=None)
    assert is_away(wrapper) == away, "also before it is raised from the other"
    assert is_away(raised(StorageInternalError("during the commit"), raised(wrapper, error))) == away
