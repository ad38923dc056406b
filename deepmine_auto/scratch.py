"""A folder for a while. What a process that was killed has left of it is deleted by the next one that wants another."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def scratch(kind: str) -> Iterator[Path]:
    """Yield a new folder, and delete it at the end. As long as its process lives it is locked; where the file system
    has no locks, what is left stays."""
    prefix = f"{kind}-{socket.gethostname()}-"  # other machines may see the folder, and not the lock
    _delete_left(prefix)
    folder = Path(tempfile.mkdtemp(prefix=f".{prefix}"))
    lock = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
            folder = folder.rename(folder.with_name(folder.name[1:]))  # before it has the lock, nobody looks for it
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _delete_left(prefix: str) -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):  # it is locked, or another user's
            _delete_unlocked(folder)


def _delete_unlocked(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(handle)
