"""Engines set right: one writer, whose every transaction checks that it still is; readers that never block it.

SQLite's defaults lose updates between processes and lock readers out; what is set here, and why, was measured.
"""

from __future__ import annotations

import fcntl
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DatabaseError

from deepmine_auto.errors import BadInput, DatabaseAway, StudyHeld
from deepmine_auto.storage.upgrade import upgrade

BUSY_MILLISECONDS = 30_000
NETWORK_FILESYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "afs"})


class Fence:
    """What a driver holds while it may write: its study and its epoch. Closed, it lets everything through."""

    def __init__(self) -> None:
        self.study_id: int | None = None
        self.epoch: int | None = None

    def check(self, connection: Connection) -> None:
        """Raise StudyHeld if another driver has taken the study since."""
        if self.study_id is None:
            return
        asked = text("SELECT MAX(epoch) FROM deepmine_sessions WHERE study_id = :study")
        newest = connection.execute(asked, {"study": self.study_id}).scalar()
        if newest != self.epoch:
            raise StudyHeld(f"Another process took this study over (epoch {newest}).", "Nothing more is written here.")


def file_of(storage: str) -> Path:
    """The SQLite file that `--storage` means: a path, or a URL sqlite:///PATH. Raises BadInput."""
    if "://" in storage and not storage.startswith("sqlite:///"):
        raise BadInput(f"'{storage.split('://')[0]}' storage is not supported.", "Give a file or sqlite:///FILE.")
    file = Path(storage.removeprefix("sqlite:///")).expanduser().absolute()
    if file.is_dir():
        raise BadInput(f"{file} is a folder.", "Name a file in it, such as studies.db.")
    if _head(file) not in (b"", b"SQLite format 3\0"):
        raise BadInput(f"{file} is no SQLite database.", "Name another file; a new one is created.")
    kind = filesystem_of(file.parent.resolve())
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


def filesystem_of(folder: Path, mounts: str = "/proc/self/mounts") -> str:
    """The type of the filesystem that holds a folder, or an empty string where the system does not say."""
    try:
        rows = [line.split()[1:3] for line in Path(mounts).read_text().splitlines()]
    except OSError:
        return ""
    above = {str(each) for each in (folder, *folder.parents)}
    holding = [(len(place), at, kind) for at, (place, kind) in enumerate(rows) if _unescaped(place) in above]
    return max(holding)[2] if holding else ""  # of two at one place, the later one covers the other


def _unescaped(place: str) -> str:
    return re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), place)  # a blank is written \040


@contextmanager
def file_lock(file: Path, *, wait: bool) -> Iterator[None]:
    """Hold an flock on a file of its own. Raises BlockingIOError where it is held and `wait` is false."""
    with open(file, "a+") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def open_writer(file: Path, fence: Fence) -> RDBStorage:
    """Open for writing; creates the file and brings our tables to this version. Raises DatabaseAway, BadInput."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it would tell of every study and trial on standard error
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(file.with_name(f"{file.name}.lock"), wait=True):
            storage = RDBStorage(URL, _engine(file, "rwc"))  # makes Optuna's tables; connections are not right yet
            storage.engine.dispose()
            _set_right(storage.engine, "BEGIN IMMEDIATE", fence)
            with storage.engine.begin() as connection:
                upgrade(connection)
        return storage
    except (OSError, DatabaseError, sqlite3.Error, optuna.exceptions.StorageInternalError) as error:
        raise DatabaseAway(
            f"The study database {file} cannot be opened: {_first(error)}.", "Check path and rights."
        ) from error


def open_reader(file: Path) -> RDBStorage:
    """Open for reading only. Raises BadInput where there is no database, DatabaseAway where it cannot be read."""
    if not file.exists():
        raise BadInput(f"There is no study database at {file}.", "Name it with --storage, or begin with a search.")
    try:
        with closing(_connect(file, "ro")) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'studies'").fetchone():
                raise BadInput(f"{file} is no study database.", "Name it with --storage, or begin with a search.")
        storage = RDBStorage(URL, _engine(file, "ro"), skip_table_creation=True, skip_compatibility_check=True)
        storage.engine.dispose()
        _set_right(storage.engine, "BEGIN", Fence())
        return storage
    except (DatabaseError, sqlite3.Error, optuna.exceptions.StorageInternalError) as error:
        raise DatabaseAway(
            f"The study database {file} cannot be read: {_first(error)}.", "Check path and rights."
        ) from error


URL = "sqlite:///studies.db"
"""What Optuna is told; where the file is, `_engine` says: Optuna formats a URL, and SQLAlchemy reads ? and % in it."""


def _engine(file: Path, mode: str) -> dict[str, Any]:
    return {"creator": lambda: _connect(file, mode)}


def _connect(file: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(file))}?mode={mode}", uri=True, check_same_thread=False)


def _set_right(engine: Engine, begin: str, fence: Fence) -> None:
    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # as an engine argument it would be a no-op: we begin by ourselves
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
        if begin != "BEGIN":
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)
        fence.check(connection)


def _first(error: BaseException) -> str:
    return str(error.__cause__ or error).splitlines()[0].rstrip(".")
