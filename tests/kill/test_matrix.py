"""A driver on SQLite that is killed, raises or loses its database at any failpoint; its study is then resumed."""

import pytest
from away import without_fsync
from driving import fork_server
from fakes import Desk
from matrix import CASES, SITES, Ground, named


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    with fork_server() as server:
        yield Ground(without_fsync(Desk(tmp_path_factory.mktemp("matrix"))), server)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "action", "nth"), CASES)
def test_a_study_disturbed_at_a_failpoint_is_the_one_that_was_not(ground, name, action, nth):
    ground.assert_survives(name, action, nth)


def test_the_matrix_has_every_failpoint_of_the_program(checkout):
    assert named(checkout / "deepmine_auto") == SITES.keys()
