"""A driver on PostgreSQL that is killed, raises or loses its database at any failpoint; its study is then resumed."""

import pytest
from driving import fork_server
from fakes import Desk
from matrix import CASES, Ground

from deepmine_auto.storage.place import place_of


@pytest.fixture(scope="module")
def ground(tmp_path_factory, postgres):
    place = place_of(postgres.url(postgres.new_database()))
    with fork_server() as server:
        yield Ground(Desk(tmp_path_factory.mktemp("matrix"), place=place), server)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "action", "nth"), CASES)
def test_a_study_disturbed_at_a_failpoint_is_the_one_that_was_not(ground, name, action, nth):
    ground.assert_survives(name, action, nth)
