"""Where a study runs when it goes on."""

import pytest
from fakes import Desk

from deepmine_auto import opening
from deepmine_auto.changing import Change
from deepmine_auto.errors import BadInput
from deepmine_auto.host import the_host

BEFORE = {
    "executor": "ray",
    "gpus": 8,
    "gpus_per_trial": 0.5,
    "workers": None,
    "address": "10.0.0.1:6379",
    "insecure_cluster": True,
}


def test_a_study_goes_on_where_it_was_unless_something_is_said():
    assert Change(trials=9).on(BEFORE) == BEFORE
    assert Change(workers=2).on(BEFORE) == {**BEFORE, "workers": 2}
    assert Change(gpus=0).on(BEFORE) == {**BEFORE, "gpus": 0}, "none is a number too"


@pytest.mark.parametrize("given", [{"executor": "inline"}, {"executor": "ray"}, {"address": "10.0.0.2:6379"}])
def test_another_place_has_its_own_number_of_workers(given):
    elsewhere = {**BEFORE, "gpus": None, "gpus_per_trial": None, "address": None, "insecure_cluster": False}
    assert Change(**given).on(BEFORE) == {**elsewhere, **given}


def test_a_place_that_there_is_not_is_refused():
    with pytest.raises(BadInput, match=r"'inlin' is no executor\. Did you mean 'inline'"):
        Change(executor="inlin").on(BEFORE)
    with pytest.raises(BadInput, match=r"--workers is 0\. Give a larger number"):
        Change(workers=0).on(BEFORE)


def test_where_a_study_goes_on_is_written_for_the_next_time_too(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "check", lambda *_: None)
    desk = Desk(tmp_path)
    study = desk.begin()
    desk.store.set_spec(study.id, {**study.spec, "workers": BEFORE})
    went_on, _ = opening.go_on(desk.store.study("study"), desk.store, Change(executor="inline"), the_host())
    assert went_on == desk.store.study("study")
    assert went_on.spec["workers"] == Change(executor="inline").on(BEFORE)
