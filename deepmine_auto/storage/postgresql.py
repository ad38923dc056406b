"""Studies in a PostgreSQL database: few connections, which notice that the other end is gone; no password in sight."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from deepmine_auto.errors import BadInput, DatabaseAway, DeepmineError, MissingExtra
from deepmine_auto.storage import USUAL
from deepmine_auto.storage.away import is_away
from deepmine_auto.storage.engine import Fence, Hold, guard, words_of
from deepmine_auto.storage.said import Said
from deepmine_auto.storage.upgrade import refuse_foreign, standing, upgrade

if TYPE_CHECKING:
    import psycopg

DIALECT = "postgresql+psycopg"

CONNECTIONS = 3
"""A driver's share of the server's; the study's lock takes one more."""

PATIENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""For how long this end believes in a silent server: seconds, and milliseconds at last."""

SETTINGS = {
    "tcp_keepalives_idle": "30s",
    "tcp_keepalives_interval": "10s",
    "tcp_keepalives_count": "3",
    "idle_in_transaction_session_timeout": "60s",
    "lock_timeout": "30s",
}
"""For how long the server believes in a silent driver, whose locks would keep others out."""

SECRETS = ("password", "sslpassword")


@dataclass(frozen=True)
class PostgresqlDatabase(Said):
    """A study database on a server. Its text is what to type after --storage; a pickled copy has no password."""

    public: URL
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def __str__(self) -> str:
        return self.public.set(drivername="postgresql").render_as_string()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.public,)

    @property
    def url(self) -> str:
        """What Optuna's own tools take; they find the password in PGPASSWORD or in ~/.pgpass."""
        return self.public.render_as_string()

    @property
    def folder(self) -> Path:
        """Where studies put their folders unless told otherwise."""
        return Path(USUAL).parent.absolute()

    def open_writer(self, fence: Fence) -> RDBStorage:
        """Open for writing; makes the tables and brings ours to this version. Raises DatabaseAway, BadInput."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # it would tell of every study and trial on standard error
        with self._telling("opened"), self._alone():
            storage = RDBStorage(self._dialect, self._engine(), skip_compatibility_check=True)
            refuse_foreign(storage, self)
            guard(storage.engine, "", fence, self._told)
            with storage.engine.begin() as connection:
                upgrade(connection)
            return storage

    def open_reader(self) -> RDBStorage:
        """Open for reading only. Raises BadInput where no study was kept, DatabaseAway where it cannot be read."""
        with self._telling("read"):
            if not self._has_tables():
                raise BadInput(
                    f"{self} holds no study.", f"Name the database with {self.option}, or begin with a search."
                )
            engine = self._engine(default_transaction_read_only="on")
            storage = RDBStorage(self._dialect, engine, skip_compatibility_check=True, skip_table_creation=True)
            refuse_foreign(storage, self)
            guard(storage.engine, "", Fence(), self._told)
            return storage

    def names(self) -> set[str]:
        """The names of all studies in it, ours or not; none where nothing was made yet. Raises DatabaseAway."""
        with self._telling("read"):
            if not self._has_tables():
                return set()
        return {each.study_name for each in self.open_reader().get_all_studies()}

    def hold(self, study: str, *, take_over: bool = False) -> AbstractContextManager[Hold]:
        """Be the one driver of a study; `take_over` ends the other's lock. Raises StudyHeld, DatabaseAway."""
        from deepmine_auto.storage.session_hold import held

        return held(self, study, take_over)

    def look(self) -> str:
        """Whether studies can be kept here, and what there is, in words. Raises DatabaseAway, BadInput."""
        with self._telling("used"), closing(self.connect()) as connection:
            version = f"PostgreSQL {connection.info.server_version // 10_000}"
            if not self._has_tables():
                connection.execute("BEGIN; CREATE TABLE deepmine_probe (); ROLLBACK")
                return f"{version}, new"
        with self.open_reader().engine.connect() as connected:
            return f"{version}, {standing(connected)}"

    def connect(self, **settings: str) -> psycopg.Connection[Any]:
        """A connection that commits by itself, with settings of the server beside ours. Raises psycopg.Error."""
        asked = {**PATIENCE, **self._arguments()}  # a URL may ask for more patience, or less
        connection: psycopg.Connection[Any] = _psycopg().connect(**asked, autocommit=True)
        told = {"application_name": _who(), **SETTINGS, **settings}
        connection.execute("; ".join(f"SET {name} = '{value}'" for name, value in told.items()))
        return connection

    # -- how ---------------------------------------------------------------------------------------------------------

    @property
    def _dialect(self) -> str:
        """All that Optuna and SQLAlchemy learn: they print, format and pickle what they are given."""
        return f"{DIALECT}://"

    def _engine(self, **settings: str) -> dict[str, Any]:
        return {
            "creator": _Creator(self, settings),
            "pool_pre_ping": True,
            "pool_size": CONNECTIONS,
            "max_overflow": 0,
            "hide_parameters": True,
        }

    def _arguments(self) -> dict[str, Any]:
        query = {name: each if isinstance(each, str) else ",".join(each) for name, each in self.public.query.items()}
        return {**query, **self.public.translate_connect_args(username="user", database="dbname"), **self.secrets}

    def _has_tables(self) -> bool:
        with closing(self.connect()) as connection:
            row = connection.execute("SELECT to_regclass('studies') IS NOT NULL").fetchone()
            return bool(row and row[0])

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep others from making tables meanwhile: two that do it at once both fail."""
        from deepmine_auto.storage.session_hold import lock_key

        with closing(self.connect()) as connection:
            connection.execute("SELECT pg_advisory_lock(%s)", [lock_key("tables")])
            yield

    def _told(self, error: BaseException, doing: str = "used") -> DeepmineError | None:
        if not is_away(error):
            return None
        remedy = "Look whether it runs, and at host, name, user and password."
        return DatabaseAway(f"The study database {self} cannot be {doing}: {words_of(error)}.", remedy)

    @contextmanager
    def _telling(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError, _psycopg().Error) as error:
            refused = f"The study database {self} cannot be {doing}: {words_of(error)}."
            raise self._told(error, doing) or BadInput(refused, "Ask for the right to make tables there.") from error


@dataclass(frozen=True)
class _Creator:
    """What SQLAlchemy calls for a connection. It can be sent away, and has no password then."""

    place: PostgresqlDatabase
    settings: dict[str, str]

    def __call__(self) -> psycopg.Connection[Any]:
        connection = self.place.connect(**self.settings)
        connection.autocommit = False
        return connection


def database_of(text: str) -> PostgresqlDatabase:
    """The database of a URL postgresql://USER:PASSWORD@HOST:PORT/NAME, where most may be missing. Raises BadInput."""
    _psycopg()
    try:
        url = make_url(text)
    except (SQLAlchemyError, ValueError):
        remedy = "It is postgresql://USER@HOST:PORT/NAME; in a password, @ is written %40, and so on."
        raise BadInput("The PostgreSQL URL cannot be read.", remedy) from None  # what was raised shows parts of it
    if url.drivername not in ("postgresql", "postgres", DIALECT):
        raise BadInput(f"'{url.drivername}' is not supported.", "Write postgresql://USER@HOST/NAME; psycopg 3 is used.")
    secrets = {"password": url.password, **{name: url.query.get(name) for name in SECRETS if name in url.query}}
    public = url.set(drivername=DIALECT)._replace(password=None).difference_update_query(SECRETS)
    return PostgresqlDatabase(public, {name: str(each) for name, each in secrets.items() if each is not None})


def _who() -> str:
    """This process, as others see it; the server keeps 63 ASCII characters."""
    return f"deepmine-auto process {os.getpid()} on {re.sub('[^A-Za-z0-9._-]', '?', socket.gethostname())}"[:63]


def _psycopg() -> Any:
    try:
        import psycopg
    except ImportError as error:
        what = "PostgreSQL needs psycopg, which is not installed."
        raise MissingExtra(what, 'pip install "deepmine-auto[postgresql]"') from error
    return psycopg
