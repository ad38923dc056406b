"""The studies that the tests of this folder look at."""

import pytest
from fakes import Desk
from searched_studies import Shown, fill

from deepmine_auto.storage.sqlite import SqliteFile
from deepmine_auto.storage.store import Store


@pytest.fixture(scope="session")
def shown(tmp_path_factory):
    """One study with one objective and a limit, and one with two objectives."""
    desk = Desk(tmp_path_factory.mktemp("shown"))
    return Shown(desk, Store(SqliteFile(desk.folder / "studies.db").open_reader()), *fill(desk))
