"""The lock of a study in a SQLite file: an flock beside it, which its process cannot lose while it lives."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sqlalchemy import Connection

from deepmine_auto.errors import DatabaseAway, StudyHeld
from deepmine_auto.storage.store import now

SECONDS_TO_END = 10.0
"""How long a process may take to end in good order when its study is taken over."""


@dataclass(frozen=True)
class FileHold:
    """A held study."""

    study: str

    def check(self, connection: Connection) -> None:
        """Nothing: the system keeps the lock as long as this process lives."""

    def regain(self) -> None:
        """Nothing, for the same reason."""


@contextmanager
def held(file: Path, study: str, take_over: bool = False) -> Iterator[FileHold]:
    """Hold a study by the flock on a file, which says by whom; `take_over` ends that process.

    Raises StudyHeld, and DatabaseAway where the file cannot be made.
    """
    with _opened(file) as opened:
        if not _taken(opened):
            if take_over:
                _end_holder(opened, study)
            if not take_over or not _taken(opened):
                raise _refusal(opened, study)
        opened.truncate(0)
        opened.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": now()}) + "\n")
        opened.flush()
        yield FileHold(study)


def _opened(file: Path) -> IO[str]:
    try:
        return open(file, "a+", encoding="utf-8")
    except OSError as error:
        raise DatabaseAway(f"{file} cannot be opened: {error.strerror}.", "Check path and rights.") from error


def _taken(opened: IO[str]) -> bool:
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _refusal(opened: IO[str], study: str, remedy: str = "") -> StudyHeld:
    opened.seek(0)
    try:
        holder = json.loads(opened.readline())
        who = f"process {holder['pid']} on {holder['host']}, since {holder['started']}"
    except (ValueError, KeyError, TypeError):  # it has the lock, and has not written its line yet
        who = "another process"
    remedy = remedy or "Wait for it, end it, or `resume` the study with --take-over."
    return StudyHeld(f"The study '{study}' is held by {who}.", remedy)


def _end_holder(opened: IO[str], study: str) -> None:
    """End the process that has the lock, in good order if it can: one that is stopped cannot."""
    pid = _holder(opened)
    if pid in (None, os.getpid()):
        raise _refusal(opened, study, "It cannot be ended from here: end it where it runs.")
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if _holder(opened) == pid:  # else the number may be another's by now
            _end(handle)
    except PermissionError as error:
        raise _refusal(opened, study, "It is another user's: ask them to end it.") from error
    finally:
        os.close(handle)


def _end(handle: int) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)
        if select.select([handle], [], [], SECONDS_TO_END)[0]:  # readable once the process has ended
            return


def _holder(opened: IO[str]) -> int | None:
    """The process that has the flock, as the system knows it; what stands in the file is only its word."""
    found = os.fstat(opened.fileno())
    wanted = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    try:
        rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return None
    return next((int(row[4]) for row in rows if row[1] == "FLOCK" and row[5] == wanted and int(row[4]) > 0), None)
