"""What must be on the disk before the next step is taken, and what one process alone may make there."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says of a disk that is full."""


def code_of(error: Exception) -> int | None:
    """The number of the system's error behind this one; safetensors and tokenizers have it in their text alone."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def flush(path: Path) -> None:
    """Ask the operating system to bring a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def file_lock(file: Path) -> Iterator[None]:
    """Hold an flock on a file of its own; wait until it is free."""
    with open(file, "a") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield


def sha256(file: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
