"""Where studies are kept: a SQLite file, or a PostgreSQL database. A password is neither typed nor shown."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from deepmine_auto.errors import BadInput
from deepmine_auto.storage import USUAL, VARIABLE
from deepmine_auto.storage.engine import Fence
from deepmine_auto.storage.postgresql import PostgresqlDatabase, database_of
from deepmine_auto.storage.sqlite import SqliteFile, file_of
from deepmine_auto.storage.store import Store
from deepmine_auto.storage.upgrade import refuse_older

Place = SqliteFile | PostgresqlDatabase


def place_of(asked: str | Place | None = None) -> Place:
    """The place that `--storage` means; None is what the environment says, or the usual file. Raises BadInput.

    A password is refused here: a command line is seen by all. It is taken from the environment where that names the
    same database.
    """
    said = os.environ.get(VARIABLE)
    if asked is None:
        return _named(VARIABLE, said) if said else trusted(USUAL)
    if isinstance(asked, Place):
        return asked
    place = trusted(asked)
    if isinstance(place, SqliteFile):
        return place
    if place.secrets:
        raise BadInput("A password in --storage is seen by everybody on this machine.", WHERE)
    known = _named(VARIABLE, said) if said else place
    return known if known == place else place


WHERE = f"Leave it out there, and give the whole URL in the environment variable {VARIABLE} or in a --storage-file."


def trusted(text: str) -> Place:
    """The place of a text that nobody else reads, and that may hold a password. Raises BadInput."""
    scheme = text.partition("://")[0]
    if "://" not in text or text.startswith("sqlite:///"):
        return SqliteFile(file_of(text))
    if scheme.partition("+")[0] in ("postgresql", "postgres"):
        return database_of(text)
    raise BadInput(
        f"'{scheme}' storage is not supported.", "Give a file, sqlite:///FILE or postgresql://USER@HOST/NAME."
    )


def _named(where: str, text: str) -> Place:
    """The place of a text, with where that stands in front of what is wrong with it. Raises BadInput."""
    try:
        return trusted(text)
    except BadInput as error:
        raise BadInput(f"{where}: {error.what}", error.remedy) from error


def place_in(file: str) -> Place:
    """The place that the first line of a file names. Raises BadInput."""
    try:
        first = Path(file).expanduser().read_text(encoding="utf-8-sig").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} cannot be read: {error}.", "Its first line must be the storage.") from error
    if not first:
        raise BadInput(f"The first line of {file} is empty.", "It must be the storage.")
    return replace(_named(file, first), said_in=file)


def read(place: Place) -> Store:
    """Open a study database for reading. Raises BadInput where there is none that this version reads, DatabaseAway."""
    storage = place.open_reader()
    with storage.engine.connect() as connection:
        refuse_older(connection, place)
    return Store(storage, flag_of(place))


@contextmanager
def held(place: Place, study: str, *, take_over: bool = False) -> Iterator[tuple[Store, Fence]]:
    """Open a database whose study this process alone may write. Raises StudyHeld, DatabaseAway, BadInput."""
    fence = Fence()
    with place.hold(study, take_over=take_over) as hold:
        # Not before: a driver that was stopped while it wrote keeps others from opening, and holding finds that out.
        store = Store(place.open_writer(fence), flag_of(place))
        fence.hold = hold
        yield store, fence


def flag_of(place: Place) -> str:
    """What a command about a study here needs beside its name; nothing for the usual place."""
    if place.said_in is not None:  # what it names may need the password that stands there
        return f" --storage-file {shlex.quote(place.said_in)}"
    return "" if is_usual(place) else f" --storage {shlex.quote(str(place))}"


def is_usual(place: Place) -> bool:
    """Whether commands find this place without being told."""
    try:
        return place == place_of()
    except BadInput:  # this folder is no place for studies
        return False
