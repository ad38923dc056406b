"""What a search leaves where it ends without a result."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes import Desk
from tiny_texts import SPACE, as_csv

from deepmine_auto import concluding, searching
from deepmine_auto.errors import BadInput, DeepmineError
from deepmine_auto.executors import inline
from deepmine_auto.messages import Reported
from deepmine_auto.searching import search
from deepmine_auto.storage import tables
from deepmine_auto.storage.place import place_of
from deepmine_auto.storage.store import Store
from deepmine_auto.training.ends import DeviceBroken


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with a file of texts, and a small space."""
    monkeypatch.chdir(tmp_path)
    Path("moods.csv").write_text(as_csv())
    Path("small.toml").write_text(SPACE)


def searched(error):
    """The store of a study that ended so."""
    asked = {"data": "moods.csv", "space": "small.toml", "executor": "inline", "trials": 1, "study": "one"}
    with pytest.raises(type(error), match=str(error)):
        search(task="text_classification", **asked)
    store = Store(place_of(None).open_reader())
    return store, store.study("one").id


@pytest.mark.parametrize("error", [KeyboardInterrupt("now"), DeepmineError("All failed.")])
def test_the_time_of_a_session_counts_however_it_ends(here, monkeypatch, error):
    def ends(*_):
        raise error

    monkeypatch.setattr(inline, "run", ends)
    store, study = searched(error)
    (session,) = store.sessions(study)
    assert session["spent"] > 0


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no folder here looks writable and is not")
def test_an_output_folder_that_cannot_be_made_after_all_is_refused(here):
    asked = {"data": "moods.csv", "space": "small.toml", "executor": "inline", "trials": 1, "output": "/proc/nothing"}
    told = (
        r"(The output folder /proc/nothing cannot be made: .*|Nothing can be written in /proc)\. Give another --output"
    )
    with pytest.raises(BadInput, match=told):
        search(task="text_classification", **asked)


@pytest.mark.parametrize(("takes", "told"), [("name", "There is a study 'one'"), ("folder", "one exists already")])
def test_a_name_or_folder_that_is_taken_while_workers_start_is_refused(here, monkeypatch, tmp_path, takes, told):
    def taken(asked):
        folder = tmp_path / "deepmine-auto"
        folder.mkdir()
        if takes == "name":
            Desk(folder).begin("one")
        else:
            (folder / "one").mkdir()
            (folder / "one" / "model.safetensors").touch()
        return nullcontext(searching.Workers(inline.run, 1, 0.0, lambda _: None))

    monkeypatch.setattr(searching, "workers", taken)
    asked = {"data": "moods.csv", "space": "small.toml", "executor": "inline", "trials": 1, "study": "one"}
    with pytest.raises(BadInput, match=told):
        search(task="text_classification", **asked)


def test_room_is_asked_for_before_the_locked_test_is_opened(here, monkeypatch):
    error = DeepmineError("There is no room.")

    def full(*_):
        raise error

    monkeypatch.setattr(concluding, "refuse_without_room", full)
    store, study = searched(error)
    assert "test opened" not in {row["kind"] for row in store.rows(tables.events, study)}


def test_evaluations_that_took_long_keep_more_time_for_the_end(here, monkeypatch):
    """The test's outputs take as much longer than the validation rows' as there are more of them."""
    error, more = DeepmineError("That was all."), []

    def one_evaluation(agenda, *_):
        assignment, before = agenda.next(), agenda.closing()
        agenda.heard(assignment.key, Reported(1, 100, 0.5, {"macro_f1": 0.5}, took=(40.0, 0.0)))
        parts = agenda.ledger.study.spec["parts"]
        more.append((agenda.closing() - before, 40.0 * parts["test"] / parts["validation"]))
        raise error

    monkeypatch.setattr(inline, "run", one_evaluation)
    searched(error)
    ((kept, expected),) = more
    assert kept == pytest.approx(expected)


def test_a_folder_that_is_proven_is_not_left_where_the_study_does_not_begin(tmp_path):
    there = tmp_path / "there"
    there.mkdir()
    for folder in (tmp_path / "new", there):
        seen = []
        searching._prove(folder, SimpleNamespace(prove=lambda each, seen=seen: seen.append(each.is_dir())))
        assert seen == [True]
    assert [*tmp_path.iterdir()] == [there]


def test_a_trial_that_broke_the_device_of_this_process_is_not_begun_again(here, monkeypatch):
    error = DeviceBroken("CUDA error: an illegal memory access", "attention/mine")

    def broken(*_):
        raise error
        yield

    monkeypatch.setattr(inline, "messages", broken)
    store, study = searched(error)
    (trial,) = store.trials(study)
    assert (trial.state.name, trial.user_attrs["cause"], trial.user_attrs["plugin"]) == (
        "FAIL", "plugin", "attention/mine",
    )  # fmt: skip
