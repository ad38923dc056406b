"""What every test shares: one thread, no network, and the folder of real data."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from postgres import Server

    from deepmine_auto.storage.place import Place

if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # a suite begun by nohup would pass it on to all that it starts
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")

CHECKOUT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have slow tests, so that two processes are done at the same time."""
    slow = {each.path for each in items if each.get_closest_marker("slow")}
    items.sort(key=lambda each: each.path not in slow)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data that may be read but not carried; skips where it is missing."""
    folder = Path(os.environ.get("DEEPMINE_AUTO_TEST_DATA", CHECKOUT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set DEEPMINE_AUTO_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the checkout."""
    return CHECKOUT


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server; skips where the programs or psycopg are missing."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'deepmine-auto[postgresql]'")
    from postgres import Server, programs

    found = programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed: no initdb in PATH or /usr/lib/postgresql/*/bin")
    server = Server(found)
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A new place for studies, of each kind."""
    from deepmine_auto.storage.place import place_of
    from deepmine_auto.storage.sqlite import SqliteFile

    if request.param == "sqlite":
        yield SqliteFile(tmp_path / "studies.db")
        return
    server = request.getfixturevalue("postgres")
    with server.database() as name:
        yield place_of(server.url(name))
