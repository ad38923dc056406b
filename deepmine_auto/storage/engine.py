"""What both kinds of database share: the fence that every transaction of a driver passes, and errors in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sqlalchemy import Connection, Engine, ExceptionContext, event, text

from deepmine_auto.errors import DatabaseAway, DeepmineError, StudyHeld


class LockLost(DatabaseAway):
    """The connection that held the study's lock is gone; nothing may be written until the lock is held again."""


class StudyDeleted(DeepmineError):
    """Somebody deleted the study while a driver worked on it."""


class Hold(Protocol):
    """The lock of one study, held by this process."""

    @property
    def study(self) -> str:
        """The study's name."""

    def check(self, connection: Connection) -> None:
        """Raise LockLost unless the lock is held, and stays so until the transaction ends."""

    def regain(self) -> None:
        """Take the lock again if it was lost. Raises StudyHeld if another process has it, DatabaseAway."""


class Fence:
    """What a process holds while it may write: a study's lock and, if it is the driver, the study and its epoch.
    Without any of that, all may pass."""

    def __init__(self) -> None:
        self.study_id: int | None = None
        self.epoch: int | None = None
        self.hold: Hold | None = None

    def check(self, connection: Connection) -> None:
        """Raise StudyHeld if another driver has taken the study since, StudyDeleted if it is gone, or LockLost."""
        if self.study_id is not None:
            self._check_driver(connection)
        if self.hold:
            self.hold.check(connection)

    def regain(self) -> None:
        """Take the study's lock again if it was lost. Raises StudyHeld, DatabaseAway."""
        if self.hold:
            self.hold.regain()

    def _check_driver(self, connection: Connection) -> None:
        name, newest = connection.execute(STANDING, {"study": self.study_id}).one()
        if name is None or (self.hold and name != self.hold.study):  # SQLite gives a number away again
            raise StudyDeleted("The study was deleted.", "Its folder is kept.")
        if newest != self.epoch:
            raise StudyHeld(f"Another process took this study over (epoch {newest}).", "Nothing more is written here.")


STANDING = text(
    "SELECT (SELECT study_name FROM studies WHERE study_id = :study),"
    " (SELECT MAX(epoch) FROM deepmine_sessions WHERE study_id = :study)"
)


def guard(engine: Engine, begin: str, fence: Fence, told: Callable[[BaseException], DeepmineError | None]) -> None:
    """Let every transaction begin with these words and the fence, and tell errors of the database in sentences.

    `told` returns the sentence for an error of the driver, or None for what is a bug.
    """

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        if begin:
            connection.exec_driver_sql(begin)
        fence.check(connection)

    @event.listens_for(engine, "handle_error", retval=True)
    def on_error(context: ExceptionContext) -> DeepmineError | None:
        if context.is_pre_ping or not isinstance(context.original_exception, Exception):
            return None  # a dead connection is replaced; an interrupt is none of the database's
        return told(context.original_exception)


def words_of(error: BaseException) -> str:
    """What the database said, in one line, without SQL and without advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    first, *more = said.splitlines() or [type(error).__name__]
    return " ".join([first, *(line.strip() for line in more)] if first.endswith(":") else [first]).rstrip(".")
