"""The outbox: what could not be written to the study database, on the disk, in order, until it can.

Each line is a checksum and one entry. A line that was torn by a crash is none: it was never acknowledged.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from deepmine_auto import failpoints
from deepmine_auto.disk import flush

NAME = "outbox.jsonl"


class Entry(NamedTuple):
    """One write: what is written, and its values."""

    op: str
    row: dict[str, Any]


class Outbox:
    """The file of one study. Its first entry says which epoch wrote it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / NAME

    def __len__(self) -> int:
        return sum(1 for _ in self._lines())

    @property
    def epoch(self) -> int | None:
        """The epoch of the driver that wrote it; None where there is nothing."""
        return next((int(each.row["epoch"]) for each in self._lines() if each.op == "epoch"), None)

    def entries(self) -> list[Entry]:
        """What waits, in order."""
        return [each for each in self._lines() if each.op != "epoch"]

    def append(self, entry: Entry, epoch: int) -> None:
        """Bring an entry to the disk. Raises OSError, and then nothing was added."""
        lines = [entry] if self.file.exists() else [Entry("epoch", {"epoch": epoch}), entry]
        with open(self.file, "ab") as opened:
            before = opened.tell()
            try:
                for each in lines:
                    opened.write(_line(each))
                    opened.flush()
                    failpoints.reach("mid_outbox_append")
                os.fsync(opened.fileno())
            except OSError:
                opened.truncate(before)
                raise
        if not before:
            flush(self.file.parent)

    def clear(self) -> None:
        """Forget what waited, once it is written."""
        self.file.unlink(missing_ok=True)
        flush(self.file.parent)

    def put_aside(self) -> Path:
        """Keep what can never be written under another name, and return that."""
        aside = self.file.with_name(f"outbox-of-epoch-{self.epoch}.jsonl")
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


def _line(entry: Entry) -> bytes:
    text = json.dumps(entry._asdict(), ensure_ascii=True).encode()
    return _checksum(text) + b" " + text + b"\n"


def _checksum(text: bytes) -> bytes:
    return b"%08x" % zlib.crc32(text)
