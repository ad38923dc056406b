"""Options and answers that several commands share."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from deepmine_auto.errors import BadInput
from deepmine_auto.storage import USUAL, VARIABLE

if TYPE_CHECKING:
    from deepmine_auto.storage.place import Place

F = TypeVar("F", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")


def storage_options(command: F) -> F:
    """Add --storage and --storage-file."""
    file = click.option("--storage-file", metavar="FILE", help="A file whose first line is the storage.")
    told = f"The study database: a file, or postgresql://USER@HOST/NAME. [default: ${VARIABLE}, or {USUAL}]"
    return click.option("--storage", metavar="FILE|URL", help=told)(file(command))


def workers_options(command: F) -> F:
    """Add the options that say where trials run."""
    options = (
        click.option("--gpus", type=int, metavar="N", help="GPUs in all. [default: those that there are]"),
        click.option("--gpus-per-trial", type=float, metavar="X", help="GPUs a trial; 0.5 lets two share one."),
        click.option("--workers", type=int, metavar="N", help="Trials at a time. [default: one a GPU, or one a core]"),
        click.option(
            "--pin-workers", is_flag=True, help="Keep each worker to cores of its own, where enough are free."
        ),
        click.option("--executor", metavar="NAME", help="Where trials run: ray, or inline in this process."),
        click.option("--address", metavar="ADDRESS", help="A Ray cluster to join instead of starting one."),
        click.option("--insecure-cluster", is_flag=True, help="Join it even if anybody may run code on it."),
    )
    for each in reversed(options):
        command = each(command)
    return command


def database(storage: str | None, storage_file: str | None) -> Place:
    """Where studies are kept: what the two options say, or the environment, or the usual file. Raises BadInput."""
    from deepmine_auto.storage.place import place_in, place_of

    if storage_file is None:
        return place_of(storage)
    if storage is not None:
        raise BadInput("--storage and --storage-file were both given.", "Give one of them.")
    return place_in(storage_file)


def listed(given: Iterable[str]) -> list[str]:
    """The names of an option that takes several, separated by commas or given again."""
    return [name.strip() for each in given for name in each.split(",") if name.strip()]


def as_one_json(value: Any, **how: Any) -> str:
    """A value as JSON that standard output can hold: where that is not UTF-8, JSON has escapes."""
    escaped = (sys.stdout.encoding or "").lower() not in ("utf-8", "utf8")
    return json.dumps(value, ensure_ascii=escaped, **how)


def print_json(value: Any) -> None:
    """Print one JSON object on standard output."""
    click.echo(as_one_json(value, indent=1, default=str))


def width() -> int | None:
    """The width that a table must fit, or None where no person looks."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
