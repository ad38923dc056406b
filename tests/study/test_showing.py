"""Notes, artifacts and attributes: what other tools read of a study beside its trials, and what may go wrong."""

import json
import sys

import numpy as np
import optuna
import optuna_dashboard
import pytest
from fakes import Desk
from hypothesis import given
from hypothesis import strategies as st
from optuna.artifacts import FileSystemArtifactStore, download_artifact, get_all_artifact_meta
from optuna.trial import create_trial

from deepmine_auto.errors import DatabaseAway, StudyHeld
from deepmine_auto.study import showing
from deepmine_auto.study.showing import attach, attach_confusion, capped, cut, note_study, note_trial


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


@pytest.fixture
def study(desk):
    """A study with three ended trials."""
    study = desk.begin()
    for _ in range(3):
        desk.store.storage.create_new_trial(study.id, create_trial(value=1.0))
    return study


def stock(desk, study):
    """The study as Optuna's own tools load it."""
    return optuna.load_study(study_name=study.name, storage=desk.store.storage)


def trial_of(desk, study, number):
    """A trial as optuna-dashboard's own functions take it."""
    return optuna.trial.Trial(stock(desk, study), desk.trials(study)[number]._trial_id)


def raising(error):
    def broken(*args, **kwargs):
        raise error

    return broken


# -- notes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["short", "", "x" * 2045, "x" * 2046, "é|\n" * 3000, "😀" * 4091])
def test_optuna_dashboard_reads_the_note_as_it_was_written(desk, study, text):
    assert note_study(desk.store, study, text)
    assert optuna_dashboard.get_note(stock(desk, study)) == text


def test_a_note_takes_the_place_of_the_one_before_and_a_shorter_one_leaves_nothing_of_it(desk, study):
    for text in ("long" * 2000, "short", "long" * 1000):
        note_study(desk.store, study, text)
        assert optuna_dashboard.get_note(stock(desk, study)) == text


def test_optuna_dashboard_goes_on_with_our_note_and_we_with_its(desk, study):
    note_study(desk.store, study, "ours")
    optuna_dashboard.save_note(stock(desk, study), "theirs" * 1000)
    assert note_study(desk.store, study, "ours again")
    assert optuna_dashboard.get_note(stock(desk, study)) == "ours again"
    assert desk.store.storage.get_study_system_attrs(study.id)["dashboard:note_ver"] == 3


def test_the_same_note_is_not_written_again(desk, study):
    for _ in range(3):
        note_study(desk.store, study, "the same")
    assert desk.store.storage.get_study_system_attrs(study.id)["dashboard:note_ver"] == 1


def test_an_ended_trial_has_a_note_of_its_own(desk, study):
    note_study(desk.store, study, "of the study")
    for number in (0, 1):
        assert note_trial(desk.store, study, desk.trials(study)[number], f"of trial {number}")
    notes = [optuna_dashboard.get_note(trial_of(desk, study, number)) for number in (0, 1, 2)]
    assert notes == ["of trial 0", "of trial 1", ""]
    assert optuna_dashboard.get_note(stock(desk, study)) == "of the study"


def test_a_note_is_cut_before_it_is_too_large_for_a_page(desk, study):
    note_study(desk.store, study, "é" * showing.MOST_BYTES)
    assert optuna_dashboard.get_note(stock(desk, study)) == "é" * (showing.MOST_BYTES // 2)


# -- artifacts ---------------------------------------------------------------------------------------------------------


def test_optuna_reads_an_artifact_of_the_study(desk, study, tmp_path):
    assert attach(desk.store, study, "config.json", b'{"depth": 2}')
    (meta,) = get_all_artifact_meta(stock(desk, study))
    assert (meta.filename, meta.mimetype) == ("config.json", "application/json")
    store = FileSystemArtifactStore(tmp_path / "study" / "artifacts")
    download_artifact(artifact_store=store, file_path=str(tmp_path / "copy"), artifact_id=meta.artifact_id)
    assert (tmp_path / "copy").read_bytes() == b'{"depth": 2}'


def test_optuna_dashboard_lists_an_artifact_of_an_ended_trial_with_that_trial_alone(desk, study):
    from optuna_dashboard.artifact._backend import list_study_artifacts, list_trial_artifacts

    trials = desk.trials(study)
    assert attach(desk.store, study, "config.json", b"{}", trials[2])
    attrs = desk.store.storage.get_study_system_attrs(study.id)
    listed = [[each["filename"] for each in list_trial_artifacts(attrs, {}, trial)] for trial in trials]
    assert listed == [[], [], ["config.json"]]
    assert list_study_artifacts(attrs) == []


def test_what_is_attached_again_is_written_over(desk, study, tmp_path):
    for content in (b"before", b"after"):
        attach(desk.store, study, "a.txt", content)
    (file,) = (tmp_path / "study" / "artifacts").iterdir()
    assert file.read_bytes() == b"after"
    assert len(get_all_artifact_meta(stock(desk, study))) == 1


@pytest.mark.parametrize("name", ["../../escape.txt", "/etc/escape", "a\0b", "x" * 300])
def test_a_name_decides_no_path(desk, study, tmp_path, name):
    assert attach(desk.store, study, name, b"content")
    (file,) = (tmp_path / "study" / "artifacts").iterdir()
    assert file.name == get_all_artifact_meta(stock(desk, study))[0].artifact_id


def test_the_confusion_picture_is_shown_with_the_trial_and_with_the_study(desk, study, tmp_path):
    truth = np.array([0, 1, 1])
    assert attach_confusion(desk.store, study, desk.trials(study)[0], ["no", "yes"], truth, truth)
    files = [each.read_bytes() for each in (tmp_path / "study" / "artifacts").iterdir()]
    assert len(files) == 2
    assert all(each.startswith(b"\x89PNG") for each in files)
    assert [each.filename for each in get_all_artifact_meta(stock(desk, study))] == ["confusion.png"]


# -- decoration disturbs no search -------------------------------------------------------------------------------------


def test_while_the_database_is_away_nothing_is_shown_and_the_search_goes_on(desk, study, monkeypatch):
    away = raising(DatabaseAway("The database cannot be reached."))
    monkeypatch.setattr(desk.store.storage, "get_study_system_attrs", away)
    monkeypatch.setattr(desk.store.storage, "set_study_system_attr", away)
    assert note_study(desk.store, study, "text") is False
    assert note_trial(desk.store, study, desk.trials(study)[0], "text") is False
    assert attach(desk.store, study, "a.txt", b"") is False


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(desk, study, tmp_path):
    (tmp_path / "study" / "artifacts").write_text("a file in its place")
    assert attach(desk.store, study, "a.txt", b"") is False
    assert get_all_artifact_meta(stock(desk, study)) == []


def test_without_pillow_there_is_no_picture_and_the_search_goes_on(desk, study, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    truth = np.array([0, 1])
    assert attach_confusion(desk.store, study, desk.trials(study)[0], ["no", "yes"], truth, truth) is False


def test_an_overtaken_driver_writes_no_note_and_hears_of_it(desk, study):
    desk.ledger(study)
    desk.store.begin_session(study.id)
    with pytest.raises(StudyHeld, match="took this study over"):
        note_study(desk.store, study, "stale")
    desk.free()
    assert optuna_dashboard.get_note(stock(desk, study)) == ""


def test_a_bug_is_not_taken_for_a_failure(desk, study, monkeypatch):
    monkeypatch.setattr(desk.store.storage, "get_study_system_attrs", raising(TypeError("a bug")))
    with pytest.raises(TypeError, match="a bug"):
        note_study(desk.store, study, "text")


# -- attributes --------------------------------------------------------------------------------------------------------

SIZES = st.dictionaries(st.text(max_size=3), st.text(max_size=9) | st.floats() | st.none(), max_size=9)


@given(SIZES)
def test_small_attributes_stay_as_they_are(attrs):
    attrs = {name: each for name, each in attrs.items() if not (isinstance(each, str) and "\ud800" <= each <= "\udfff")}
    assert repr(capped(attrs)) == repr(attrs)


def test_a_text_is_cut_to_64_kib_and_a_trial_to_1_mib():
    attrs = {"number": 1.5, **{f"text{at}": "é" * 100_000 for at in range(40)}}
    kept = capped(attrs)
    assert kept["number"] == 1.5
    assert len(kept["text0"].encode()) == 64 * 1024
    assert sum(len(each.encode()) for each in kept.values() if isinstance(each, str)) == 1024 * 1024
    assert kept["text39"] == ""


@given(st.text(), st.integers(0, 20))
def test_a_cut_text_is_the_beginning_of_the_text_and_fits(text, most):
    whole = text.encode(errors="replace").decode()
    assert whole.startswith(cut(text, most))
    assert len(cut(text, most).encode()) <= most


def test_what_utf8_cannot_hold_can_be_written(desk, study):
    assert json.dumps(capped({"reason": "\ud800"})) == '{"reason": "?"}'
    assert note_study(desk.store, study, "a\ud800b")
