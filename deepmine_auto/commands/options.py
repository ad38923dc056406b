"""Options and answers that several commands share."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from deepmine_auto.errors import BadInput

F = TypeVar("F", bound=Callable[..., Any])

STORAGE = "deepmine-auto/studies.db"
"""Where studies are unless the user says otherwise."""

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")


def storage_options(command: F) -> F:
    """Add --storage and --storage-file."""
    file = click.option("--storage-file", metavar="FILE", help="A file whose first line is the storage.")
    return click.option("--storage", metavar="FILE", help=f"The study database. [default: {STORAGE}]")(file(command))


def storage_from(storage: str | None, storage_file: str | None) -> str | None:
    """What the two options say, or None. Raises BadInput."""
    if storage_file is None:
        return storage
    if storage is not None:
        raise BadInput("--storage and --storage-file were both given.", "Give one of them.")
    try:
        lines = Path(storage_file).expanduser().read_text(encoding="utf-8").split("\n", 1)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{storage_file} cannot be read: {error}.", "Its first line must be the storage.") from error
    if not lines[0].strip():
        raise BadInput(f"The first line of {storage_file} is empty.", "It must be the storage.")
    return lines[0].strip()


def database(storage: str | None, storage_file: str | None) -> Path:
    """The study database to read. Raises BadInput."""
    from deepmine_auto.storage.engine import file_of

    return file_of(storage_from(storage, storage_file) or STORAGE)


def storage_flag(storage: Path) -> str:
    """What a command about a study in `storage` needs beside its name; nothing for the usual place."""
    return "" if storage == Path(STORAGE).absolute() else f" --storage {storage}"


def print_json(value: Any) -> None:
    """Print one JSON object on standard output."""
    click.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def width() -> int | None:
    """The width that a table must fit, or None where no person looks."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
