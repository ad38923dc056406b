"""The studies that the tests of this folder look at."""

import pytest
from fakes import Desk
from searched_studies import Shown, fill

from deepmine_auto.storage.place import place_of
from deepmine_auto.storage.store import Store


@pytest.fixture(scope="session")
def shown(tmp_path_factory):
    """One study with one objective and a limit, and one with two objectives."""
    return shown_on(Desk(tmp_path_factory.mktemp("shown")))


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def shown_anywhere(request, tmp_path_factory):
    """The same studies in each kind of database."""
    if request.param == "sqlite":
        return request.getfixturevalue("shown")
    server = request.getfixturevalue("postgres")
    return shown_on(Desk(tmp_path_factory.mktemp("shown"), place=place_of(server.url(server.new_database()))))


def shown_on(desk):
    """The studies that a desk writes, and a reader of them."""
    return Shown(desk, Store(desk.place.open_reader()), *fill(desk))
