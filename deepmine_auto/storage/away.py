"""Whether a database is away for the moment."""

from __future__ import annotations

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import text
from sqlalchemy.exc import InterfaceError, OperationalError

from deepmine_auto.errors import DatabaseAway


def is_away(error: BaseException) -> bool:
    """Whether an error means that the database cannot be reached now, and may come back."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, DatabaseAway | OperationalError | InterfaceError):
            return True
        inner = inner.__cause__ or (inner.__context__ if isinstance(inner, StorageInternalError) else None)
    return False


def probe(storage: RDBStorage) -> bool:
    """Whether the database answers."""
    try:
        with storage.engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except Exception:  # whatever it is, the database does not answer
        return False
    return True
