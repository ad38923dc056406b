"""A study is begun with all that belongs to it, in a folder of its own."""

import errno
from contextlib import nullcontext, suppress
from itertools import count

import pytest
from away import without_fsync
from fakes import SPACE, Bomb, Desk, Killed
from tiny_texts import rows

from deepmine_auto import searching
from deepmine_auto.data import kept
from deepmine_auto.data.split import split
from deepmine_auto.errors import BadInput, DeepmineError
from deepmine_auto.opening import Onward, _reopened, begin, go_on
from deepmine_auto.planning.plan import Plan
from deepmine_auto.storage import tables
from deepmine_auto.storage.place import place_of
from deepmine_auto.storage.sqlite import SqliteFile
from deepmine_auto.study.budget import Budget
from deepmine_auto.study.spaces import Spaces

SPEC = {"task": "t", "seed": 0, "space": SPACE.to_json(), "space_name": "s", "fingerprint": "f", "described": {"a": 1}}
SPEC |= {"objectives": ["f"], "directions": ["maximize"]}
EVIDENCE = tuple({"number": at, "source": "old", "params": {"x": at}, "rank": at / 2} for at in range(3))


def planned(place, name="study", texts=80):
    """A plan for a study beside its database."""
    made = rows(texts)
    splits = {kept.SEARCH: split(made.labels, 1)}
    return Plan(name, place, place.folder / name, made, splits, Budget(trials=3), SPEC, ("a note",), EVIDENCE)


def test_a_study_that_is_there_has_all_of_its_evidence_wherever_its_beginning_was_killed(tmp_path):
    """Else it would go on with a part of what it was to start from."""
    desk = without_fsync(Desk(tmp_path, fence=Bomb()))
    for left in count():
        plan = planned(desk.place, f"study{left}")
        desk.fence.left = left
        with suppress(Killed):
            begin(plan, desk.store)
        ended, desk.fence.left = desk.fence.left >= 0, None
        if plan.name in desk.store.names():
            study = desk.store.study(plan.name)
            assert len(desk.store.rows(tables.datasets, study.id)) == 1
            whole = [{"study_id": study.id, **row} for row in EVIDENCE]
            assert desk.store.rows(tables.evidence, study.id) == whole
        if ended:
            break
    assert left > 5, "it was killed at several places"


def test_of_two_studies_that_begin_in_one_folder_the_later_is_refused_and_changes_nothing(tmp_path):
    """Their databases stand beside each other. Both found the folder empty when they looked before."""
    one, two = (Desk(tmp_path, place=SqliteFile(tmp_path / f"{each}.db")) for each in ("one", "two"))
    (tmp_path / "study").mkdir()
    study, notes = begin(planned(one.place), one.store)
    assert notes == ("a note",)
    with pytest.raises(BadInput, match=r"The output folder .*/study is another study's\. Give another --output"):
        begin(planned(two.place, texts=60), two.store)
    assert kept.digest(tmp_path / "study") == study.spec["kept"]
    assert two.store.names() == []


def test_rows_that_find_no_room_leave_the_name_to_the_next_try(tmp_path, monkeypatch):
    def full(folder, *_):
        (folder / kept.OPEN).write_text("half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    desk = Desk(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(kept, "keep", full)
        with pytest.raises(DeepmineError, match=r"The rows cannot be kept in .*study: No space left .*\. Make room"):
            begin(planned(desk.place), desk.store)
    assert desk.store.names() == []
    begin(planned(desk.place), desk.store)


def test_a_folder_that_workers_do_not_see_is_refused_before_a_study_begins_there(tmp_path, monkeypatch):
    """One that has begun keeps its folder, so that the remedy would come too late."""

    def unseen(folder):
        assert folder.is_dir()
        raise BadInput("The node n does not see it.", "Give --output on a path that all nodes share.")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(searching, "workers", lambda _: nullcontext(searching.Workers(print, 1, 0.0, unseen)))
    with pytest.raises(BadInput, match=r"The node n does not see it\. Give --output"):
        searching.search(task="sentiment", trials=1, output=str(tmp_path / "out"), executor="inline", study="one")
    assert not (tmp_path / "out").exists()
    assert not place_of(None).names()


def test_a_search_that_ended_goes_on_where_its_budget_or_its_space_is_changed(tmp_path):
    desk = Desk(tmp_path)
    study = desk.begin()
    ledger = desk.ledger(study)
    ledger.event("search ended", "all failed", 4)
    assert desk.ledger(study).history.search_ended
    space = Spaces.of(desk.store, study).now
    wider = _reopened(study, desk.store, Budget(trials=9))
    desk.free()
    study = go_on(study, desk.store, Onward(wider, "s", space, (), ()))
    history = desk.ledger(study).history
    assert (history.search_ended, history.failures_told) == (False, 4)
    desk.ledger(study).event("search ended", "all failed again", 5)
    assert desk.ledger(study).history.search_ended
    desk.free()
    study = go_on(study, desk.store, Onward(study, "other", space, ("x is new.",), ()))
    assert not desk.ledger(study).history.search_ended
