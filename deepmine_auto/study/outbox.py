"""The outbox: what could not be written to the study database, on the disk, in order, until it can.

Each line is a checksum and one entry. A line that was torn by a crash is none: it was never acknowledged.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from deepmine_auto import failpoints
from deepmine_auto.disk import flush

NAME = re.compile(r"outbox-(\d+)\.jsonl")


class Entry(NamedTuple):
    """One write: what is written, and its values."""

    op: str
    row: dict[str, Any]


class Outbox:
    """The file of one driver, which alone appends to it: two that meet in one folder do not disturb each other."""

    def __init__(self, folder: Path, epoch: int) -> None:
        self.epoch = epoch
        self.file = folder / f"outbox-{epoch}.jsonl"
        self.whole = 0  # bytes that this driver has brought to the disk

    def __len__(self) -> int:
        return sum(1 for _ in self._lines())

    def entries(self, after: int = 0) -> list[Entry]:
        """What waits, in order, `after` so many."""
        return list(self._lines())[after:]

    def append(self, entry: Entry) -> None:
        """Bring an entry to the disk. Raises OSError; what that leaves behind is cut off by the next one."""
        line = _line(entry)
        handle = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.ftruncate(handle, self.whole)
            _write_all(handle, line)
            failpoints.reach("mid_outbox_append")
            os.fsync(handle)
        finally:
            os.close(handle)
        if not self.whole:
            flush(self.file.parent)
        self.whole += len(line)

    def clear(self) -> None:
        """Forget what waited, once it is written."""
        self.file.unlink(missing_ok=True)
        flush(self.file.parent)
        self.whole = 0

    def put_aside(self) -> Path:
        """Keep what can never be written under another name, and return that."""
        aside = self.file.with_name(f"late-{self.file.name}")
        self.file.rename(aside)
        flush(aside.parent)
        return aside

    def _lines(self) -> Iterator[Entry]:
        try:
            whole = self.file.read_bytes()
        except FileNotFoundError:
            return
        for line in whole.splitlines(keepends=True):
            checksum, _, text = line.rstrip(b"\n").partition(b" ")
            if not line.endswith(b"\n") or checksum != _checksum(text):
                return
            yield Entry(**json.loads(text))


def left_in(folder: Path) -> list[Outbox]:
    """What drivers have left, the oldest first; nothing where the folder is gone, so that its study can be stopped."""
    names = [each.name for each in folder.iterdir()] if folder.is_dir() else []
    epochs = (int(found[1]) for each in names if (found := NAME.fullmatch(each)))
    return [Outbox(folder, epoch) for epoch in sorted(epochs)]


def _write_all(handle: int, line: bytes) -> None:
    while line:  # a disk that fills up takes a part
        line = line[os.write(handle, line) :]


def _line(entry: Entry) -> bytes:
    text = json.dumps(entry._asdict(), ensure_ascii=True).encode()
    return _checksum(text) + b" " + text + b"\n"


def _checksum(text: bytes) -> bytes:
    return b"%08x" % zlib.crc32(text)
