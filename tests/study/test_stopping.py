"""A study that nobody works on is stopped, checked and replayed, in a file and on a server."""

import shutil

import pytest
from fakes import Desk, quick

from deepmine_auto.audit.recording import read_file, write
from deepmine_auto.audit.replaying import replay
from deepmine_auto.audit.verifying import ALIVE, verify_study
from deepmine_auto.errors import BadInput, StudyHeld
from deepmine_auto.host import the_host
from deepmine_auto.storage.sqlite import SqliteFile
from deepmine_auto.study.budget import Budget
from deepmine_auto.study.stopping import stop_study


@pytest.fixture
def desk(place, tmp_path):
    """A study whose driver is gone: two trials have ended, two run."""
    desk = Desk(tmp_path, place=place)
    study = desk.begin()
    desk.store.reopen(study.id, {**study.spec, "budget": {"trials": 9}, "sampler": "tpe", "pruner": "asha"})
    agenda = desk.agenda(desk.store.study("study"), Budget(trials=9), slots=2)
    for _ in range(2):
        assignment = agenda.next()
        for message in quick(assignment, None):
            agenda.heard(assignment.key, message)
    agenda.next()
    agenda.next()
    desk.free()
    return desk


def wrong(checks):
    disk = {each.__name__ for each in ALIVE}
    return {each.name: each.wrong for each in checks if each.wrong and each.name not in disk}


def test_what_runs_is_ended_and_all_is_sound_and_comes_out_again(desk, place):
    running = [("trial", 2), ("trial", 3)]
    assert wrong(verify_study(place, "study", the_host())) == {}
    assert stop_study(place, "study", the_host(), "enough") == running
    assert stop_study(place, "study", the_host(), "enough") == []
    assert wrong(verify_study(place, "study", the_host())) == {}
    found = read_file(str(write(desk.store, "study", str(desk.folder / "study.json"))))
    assert [each.user_attrs["reason"] for each in found.trials_by_number[2:]] == ["enough", "enough"]
    checks = {each.name: each for each in replay(found, desk.sampler, desk.pruner)}
    assert checks["proposals"].counted == 4
    assert wrong(checks.values()) == {}


def test_a_study_whose_folder_is_gone_is_stopped_too(desk, place):
    shutil.rmtree(desk.folder / "study")
    assert stop_study(place, "study", the_host()) == [("trial", 2), ("trial", 3)]
    assert not [each for each in desk.trials(desk.store.study("study")) if not each.state.is_finished()]


def test_a_study_with_a_driver_is_not_stopped(desk, place, monkeypatch):
    """Told at once: a driver that was halted while it wrote keeps whoever opens the database waiting."""
    monkeypatch.setattr(type(place), "open_writer", lambda *_: pytest.fail("opened before it was held"))
    with place.hold("study"), pytest.raises(StudyHeld, match="The study 'study' is held by"):
        stop_study(place, "study", the_host())
    assert [each.state.name for each in desk.trials(desk.store.study("study"))][2:] == ["RUNNING", "RUNNING"]


def test_where_the_lock_is_out_of_reach_nobody_says_that_no_driver_is_alive(tmp_path, monkeypatch):
    desk = Desk(tmp_path)
    study = desk.begin()
    desk.store.reopen(study.id, {**study.spec, "budget": {"trials": 9}, "pruner": "asha"})
    desk.agenda(study).next()

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied", "studies.db.study.lock")

    monkeypatch.setattr(SqliteFile, "hold", refused)
    with pytest.raises(BadInput, match=r"cannot be told: studies\.db\.study\.lock: Permission denied\. "):
        verify_study(desk.place, "study", the_host())
