"""Drivers and databases killed by SIGKILL at any time: what was acknowledged, outside the database, is never lost."""

import random

import pytest
from away import without_fsync
from driving import Tally, Victim, finish, fork_server, kill_at_random
from fakes import Desk
from undisturbed import assert_whole, found

from deepmine_auto.storage.place import place_of

STEP_SECONDS = 0.01


@pytest.fixture(scope="module")
def server():
    with fork_server() as started:
        yield started


def killed_like(whole, desk, server, kills, database=None):
    """Assert that a study whose drivers are killed so often is the one that is not killed."""
    trials = 4 * kills
    calm = Victim(whole, server, "calm", trials)
    finish(calm)
    victim = Victim(desk, server, "killed", trials, STEP_SECONDS)
    kill_at_random(victim, random.Random(kills), kills, database)
    finish(victim)
    tally = Tally()
    tally.add(victim)
    print(tally)
    assert tally.kills >= kills
    assert tally.acknowledged >= trials
    assert (tally.lost, tally.dup, tally.zombies) == (0, 0, 0)
    assert tally.redone_max <= 1, "at most one checkpoint interval is done again"
    assert_whole(victim.store, victim.study, trials)
    assert found(victim.store, victim.study) == found(calm.store, calm.study), "as if nothing had happened"


@pytest.mark.slow
def test_no_acknowledged_end_is_lost_or_changed_by_20_kills_on_sqlite(tmp_path, server):
    desk = without_fsync(Desk(tmp_path))
    killed_like(desk, desk, server, 20)


@pytest.mark.slow
def test_no_acknowledged_end_is_lost_or_changed_by_10_kills_on_postgresql_some_of_the_server(
    tmp_path, server, postgres
):
    desk = Desk(tmp_path, place=place_of(postgres.url(postgres.new_database())))
    killed_like(desk, desk, server, 10, postgres)
