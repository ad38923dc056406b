"""A dataset's name for itself: equal only where every row is, in the same order or in any."""

import hashlib
import json
from typing import Any

from deepmine_auto.data.rows import Rows


def fingerprint(rows: Rows) -> str:
    """Return the sha256, in hex, of the inputs, labels and parts in their order; notes do not count.

    Each row is one line of JSON, which neither holds a bare line feed nor confuses '1' with 1 or two fields with one.
    Inputs and labels are JSON values, numpy arrays or numpy scalars.
    """
    digest = hashlib.sha256()
    for row, (each, label) in enumerate(zip(rows.inputs, rows.labels, strict=True)):
        part = None if rows.parts is None else rows.parts[row]
        digest.update(_line(each, label, part))
    return digest.hexdigest()


def content(rows: Rows) -> str:
    """Return the sha256, in hex, of the inputs and labels in whatever order, and whatever parts they are given as."""
    lines = sorted(_line(*each) for each in zip(rows.inputs, rows.labels, strict=True))
    return hashlib.sha256(b"".join(lines)).hexdigest()


def _line(*values: Any) -> bytes:
    return json.dumps(values, sort_keys=True, default=_plain).encode() + b"\n"


def _plain(value: Any) -> Any:
    return value.tolist()
