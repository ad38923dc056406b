"""Whether the study database cannot be reached, which may pass, or something is wrong, which does not."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator

from optuna.storages import RDBStorage
from sqlalchemy import exc

from deepmine_auto.errors import DatabaseAway, DeepmineError

PASSING = re.compile(
    "database or disk is full|database (table |schema )?is locked|readonly database|disk I/O error|unable to open"
    "|locking protocol"
)
"""What SQLite says when a file cannot be read or written now; whatever else it says will be so tomorrow."""


def is_away(error: BaseException) -> bool:
    """Whether an error means that the database cannot be reached now and may come back."""
    told = (_tells(each) for each in _causes(error))
    return next((each for each in told if each is not None), False)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or getattr(error, "orig", None)


def _tells(error: BaseException) -> bool | None:
    """What one error of a chain says; None where it says nothing."""
    if isinstance(error, DeepmineError):
        return isinstance(error, DatabaseAway)
    if isinstance(error, sqlite3.Error):
        return bool(PASSING.search(str(error)))
    if isinstance(error, exc.DBAPIError) and isinstance(error.orig, sqlite3.Error):
        return _tells(error.orig)
    if isinstance(error, exc.TimeoutError | exc.OperationalError | exc.InterfaceError):
        return True
    if getattr(error, "connection_invalidated", False):
        return True
    return True if _of_psycopg(error) & {"OperationalError", "ReadOnlySqlTransaction"} else None


def _of_psycopg(error: BaseException) -> set[str]:
    """Its kinds, if it is an error of psycopg, which may not be installed. A failover makes a server read-only."""
    return {each.__name__ for each in type(error).__mro__ if each.__module__.partition(".")[0] == "psycopg"}


def probe(storage: RDBStorage) -> bool:
    """Whether the database answers. Never raises; it asks below the fence, which may be what does not hold."""
    try:
        connection = storage.engine.raw_connection()
        try:
            connection.cursor().execute("SELECT 1")
        finally:
            connection.close()
    except Exception:
        return False
    return True
