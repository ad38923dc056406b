"""A database that a test takes away and gives back, and whose acknowledgements it loses."""

from __future__ import annotations

from typing import Any

from fakes import Desk
from sqlalchemy import event


class Switch:
    """The way to a desk's database.

    While it is `off`, every statement is refused. Or `after` so many more statements, the next are: so many as `refuse`
    says; or `lose` commits are done, and what the driver hears is that the database is gone.
    """

    def __init__(self, desk: Desk) -> None:
        self.off = False
        self.after = self.refuse = self.lose = 0
        dialect = desk.store.engine.dialect
        self.gone = dialect.loaded_dbapi.OperationalError("disk I/O error")
        self.execute, self.commit = dialect.do_execute, dialect.do_commit
        dialect.do_execute, dialect.do_commit = self._execute, self._commit

    @property
    def due(self) -> bool:
        """Whether something is still to happen."""
        return bool(self.refuse or self.lose)

    def _execute(self, *statement: Any) -> None:
        if self.after:
            self.after -= 1
        elif self.off or self.refuse:
            self.refuse = max(0, self.refuse - 1)
            raise self.gone
        self.execute(*statement)

    def _commit(self, connection: Any) -> None:
        self.commit(connection)
        if self.lose and not self.after:
            self.lose -= 1
            raise self.gone


def without_fsync(desk: Desk) -> Desk:
    """The same desk, faster: a killed process loses nothing that the system has, which only a power cut would."""
    engine = desk.store.engine
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def on_connect(connection: Any, _record: Any) -> None:
            connection.execute("PRAGMA synchronous = OFF")

        engine.dispose()
    return desk
