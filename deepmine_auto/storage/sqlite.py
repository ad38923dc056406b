"""Studies in a SQLite file: one writer, whose every transaction checks that it still is; readers that never block it.

SQLite's defaults lose updates between processes and lock readers out; what is set here, and why, was measured.
"""

from __future__ import annotations

import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import BaseModel
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DisconnectionError, SQLAlchemyError

from deepmine_auto.disk import file_lock
from deepmine_auto.errors import BadInput, DatabaseAway, DeepmineError
from deepmine_auto.storage.away import is_away
from deepmine_auto.storage.engine import Fence, Hold, guard, words_of
from deepmine_auto.storage.file_hold import held
from deepmine_auto.storage.filesystem import NETWORK_FILESYSTEMS, filesystem_of
from deepmine_auto.storage.said import Said
from deepmine_auto.storage.upgrade import refuse_foreign, standing, upgrade

BUSY_MILLISECONDS = 30_000

URL = "sqlite:///studies.db"
"""What Optuna is told; the creator knows the file: Optuna formats a URL, and SQLAlchemy reads ? and % in it."""

DAMAGED = re.compile("malformed|not a database|file is encrypted")


@dataclass(frozen=True)
class SqliteFile(Said):
    """A study database in a file, which need not exist. Its text is what to type after --storage."""

    file: Path

    def __str__(self) -> str:
        return str(self.file)

    @property
    def url(self) -> str:
        """What Optuna's own tools take."""
        return f"sqlite:///{self.file}"

    @property
    def folder(self) -> Path:
        """Where studies put their folders unless told otherwise."""
        return self.file.parent

    def open_writer(self, fence: Fence) -> RDBStorage:
        """Open for writing; creates the file and brings our tables to this version. Raises DatabaseAway, BadInput."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # it would tell of every study and trial on standard error
        with self._telling("opened"):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with file_lock(self.file.with_name(f"{self.file.name}.lock")):
                self._make_tables()
                storage = self._storage("rw")
                self._set_right(storage.engine, "BEGIN IMMEDIATE", fence)
                with storage.engine.begin() as connection:
                    upgrade(connection)
            return storage

    def open_reader(self) -> RDBStorage:
        """Open for reading only. Raises BadInput where there is no database, DatabaseAway where it cannot be read."""
        if not self.file.exists():
            what = f"There is no study database at {self.file}."
            raise BadInput(what, f"Name it with {self.option}, or begin with a search.")
        with self._telling("read"):
            with closing(_connect(self.file, "ro")) as connection:
                if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'studies'").fetchone():
                    what = f"{self.file} is no study database."
                    raise BadInput(what, f"Name it with {self.option}, or begin with a search.")
            storage = self._storage("ro")
            self._set_right(storage.engine, "BEGIN", Fence())
            return storage

    def names(self) -> set[str]:
        """The names of all its studies, ours or not; none where there is no file yet. Raises BadInput, DatabaseAway."""
        empty = not self.file.exists() or not self.file.stat().st_size
        return set() if empty else {each.study_name for each in self.open_reader().get_all_studies()}

    def hold(self, study: str, *, take_over: bool = False) -> AbstractContextManager[Hold]:
        """Be the one driver of a study; `take_over` ends the process that is. Raises StudyHeld, DatabaseAway."""
        with self._telling("opened"):
            self.file.parent.mkdir(parents=True, exist_ok=True)
        return held(self.file.with_name(f"{self.file.name}.{study}.lock"), study, take_over)

    def look(self) -> str:
        """Whether studies can be kept here, and what there is, in words. Raises DatabaseAway, BadInput."""
        with (
            self._telling("used"),
            tempfile.TemporaryFile(dir=next(each for each in self.file.parents if each.is_dir())),
        ):
            if not self.file.exists() or not self.file.stat().st_size:
                return "new"
        with self.open_reader().engine.connect() as connection:
            return standing(connection)

    # -- how ---------------------------------------------------------------------------------------------------------

    def _make_tables(self) -> None:
        """Make Optuna's tables in one transaction, which Optuna does not: a crash would leave some without an index."""
        engine = create_engine(URL, **self._kept_to("rwc"))
        self._set_right(engine, "BEGIN IMMEDIATE", Fence())
        with engine.begin() as connection:
            BaseModel.metadata.create_all(connection)
        engine.dispose()

    def _storage(self, mode: str) -> RDBStorage:
        storage = RDBStorage(URL, self._kept_to(mode), skip_compatibility_check=True, skip_table_creation=True)
        refuse_foreign(storage, self)  # before each transaction is alone: Optuna begins two, one in the other
        storage.engine.dispose()  # what was opened is not set right
        return storage

    def _kept_to(self, mode: str) -> dict[str, Any]:
        return {"creator": partial(_connect, self.file, mode), "hide_parameters": True}

    def _set_right(self, engine: Engine, begin: str, fence: Fence) -> None:
        @event.listens_for(engine, "connect")
        def on_connect(connection: Any, record: Any) -> None:
            record.info["file"] = _identity(self.file)
            connection.isolation_level = None  # as an engine argument it would be a no-op: we begin by ourselves
            connection.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
            if begin != "BEGIN":
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")

        @event.listens_for(engine, "checkout")
        def on_checkout(_connection: Any, record: Any, _proxy: Any) -> None:
            if record.info["file"] != _identity(self.file):  # a deleted file would take what is written, and lose it
                raise DisconnectionError(f"{self.file} is another file")

        guard(engine, begin, fence, self._told)

    def _told(self, error: BaseException, doing: str = "used") -> DeepmineError | None:
        words = words_of(error)
        if is_away(error) or isinstance(error, OSError):
            remedy = "Check path and rights, and free space."
            return DatabaseAway(f"The study database {self.file} cannot be {doing}: {words}.", remedy)
        if DAMAGED.search(words):
            remedy = f"Put a copy back, or save what can be read: sqlite3 {self.file.name} .recover"
            return BadInput(f"The study database {self.file} is damaged: {words}.", remedy)
        return None

    @contextmanager
    def _telling(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (OSError, SQLAlchemyError, sqlite3.Error, optuna.exceptions.StorageInternalError) as error:
            raise self._told(error, doing) or error from error


def file_of(storage: str) -> Path:
    """The SQLite file that `--storage` means: a path, or a URL sqlite:///PATH. Links are followed, because a file has
    one lock, which stands beside it. Raises BadInput."""
    file = Path(os.path.realpath(Path(storage.removeprefix("sqlite:///")).expanduser()))
    if file.is_dir():
        raise BadInput(f"{file} is a folder.", "Name a file in it, such as studies.db.")
    if _head(file) not in (b"", b"SQLite format 3\0"):
        raise BadInput(f"{file} is no SQLite database.", "Name another file; a new one is created.")
    kind = filesystem_of(file.parent)
    if kind in NETWORK_FILESYSTEMS:
        raise BadInput(f"{file} lies on a network filesystem ({kind}), where SQLite loses data.", "Use a local disk.")
    return file


def _head(file: Path) -> bytes:
    try:
        with open(file, "rb") as opened:
            return opened.read(16)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}.", "Check path and rights.") from error


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _connect(file: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(file))}?mode={mode}", uri=True, check_same_thread=False)
