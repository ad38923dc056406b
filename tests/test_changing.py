"""Where a study runs when it goes on."""

from dataclasses import asdict
from types import SimpleNamespace

import pytest
from fakes import Desk

import deepmine_auto
from deepmine_auto import opening
from deepmine_auto.changing import Change, _file, respaced
from deepmine_auto.data.rows import NOTHING_MORE, Rows
from deepmine_auto.errors import BadInput
from deepmine_auto.host import the_host
from deepmine_auto.searching import resume
from deepmine_auto.space import Choice, Param, Space
from deepmine_auto.storage import tables
from deepmine_auto.study.budget import Budget
from deepmine_auto.study.spaces import Spaces

BEFORE = {
    "executor": "ray",
    "gpus": 8,
    "gpus_per_trial": 0.5,
    "workers": None,
    "pin_workers": True,
    "address": "10.0.0.1:6379",
    "insecure_cluster": True,
}


def test_a_study_goes_on_where_it_was_unless_something_is_said():
    assert Change(trials=9).on(BEFORE) == BEFORE
    assert Change(workers=2).on(BEFORE) == {**BEFORE, "workers": 2}
    assert Change(gpus=0).on(BEFORE) == {**BEFORE, "gpus": 0}, "none is a number too"


@pytest.mark.parametrize("given", [{"executor": "inline"}, {"executor": "ray"}, {"address": "10.0.0.2:6379"}])
def test_another_place_has_its_own_number_of_workers(given):
    there = {"gpus": None, "gpus_per_trial": None, "pin_workers": False, "address": None, "insecure_cluster": False}
    elsewhere = {**BEFORE, **there}
    assert Change(**given).on(BEFORE) == {**elsewhere, **given}


def test_a_place_that_there_is_not_is_refused():
    with pytest.raises(BadInput, match=r"'inlin' is no executor\. Did you mean 'inline'"):
        Change(executor="inlin").on(BEFORE)
    with pytest.raises(BadInput, match=r"--workers is 0\. Give a larger number"):
        Change(workers=0).on(BEFORE)


def test_going_on_is_as_public_as_a_search():
    assert deepmine_auto.resume is resume
    assert {"resume", "search"} < {*deepmine_auto.__all__}


def test_where_a_study_goes_on_is_written_for_the_next_time_too(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "check", lambda *_: None)
    desk = Desk(tmp_path)
    study = desk.begin()
    desk.store.reopen(study.id, {**study.spec, "workers": BEFORE})
    before = desk.store.study("study")
    further = opening.onward(before, desk.store, Change(executor="inline"), the_host())
    assert desk.store.study("study") == before, "nothing is written until it can go on"
    went_on = opening.go_on(before, desk.store, further)
    assert went_on == further.study == desk.store.study("study")
    assert went_on.spec["workers"] == Change(executor="inline").on(BEFORE)


def test_a_cluster_is_joined_by_ray():
    inline = {**BEFORE, "executor": "inline", "gpus": None, "gpus_per_trial": None, "address": None}
    assert Change(address="10.0.0.2:6379").on(inline)["executor"] == "ray"


@pytest.mark.parametrize("given", ["additive", ["additive"]])
def test_other_attention_is_searched_with_the_backbones_that_the_study_has(given):
    space = Space((Param("model/kind", Choice("lstm"), {}),), {})
    spaces = Spaces({"space": space.to_json(), "space_name": "default.toml"}, ())
    task = the_host().get("task", "sentiment")
    file = _file(spaces, Change(attention=given), task, the_host())
    assert (file.plugins["backbone"], file.plugins["attention"]) == (("lstm",), ["additive"])


def finished(desk):
    study = desk.begin()
    desk.work(study)
    spec = {**study.spec, "workers": BEFORE, "budget": {"trials": 6}}
    desk.store.reopen(study.id, spec)
    desk.store.set_result(study.id, {"winner": 0})
    return desk.store.study("study")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (Change(trials=6), r"is finished and has 6 trials\. Give --trials above 6"),
        (Change(time_budget="40s"), r"is finished and has taken 40 seconds\. Give --time-budget above 40"),
        (Change(max_gpu_hours=1.5), r"is finished and has held GPUs for 2 hours\. Give --max-gpu-hours above 2"),
        (Change(attention=["linear"]), r"is finished\. Give --trials or --time-budget too"),
    ],
)
def test_a_budget_that_is_used_up_does_not_open_the_test_again(tmp_path, monkeypatch, change, told):
    monkeypatch.setattr(opening, "used", lambda _: (40.0, 2.0))
    desk = Desk(tmp_path)
    study = finished(desk)
    with pytest.raises(BadInput, match=told):
        opening.onward(study, desk.store, change, the_host())
    assert desk.store.study("study") == study


@pytest.mark.parametrize(
    ("reruns", "told"), [(1, r"is in its finals\. Give --trials"), (0, r"has all its 2 trials\. Give --trials")]
)
def test_another_space_that_no_trial_would_be_drawn_from_is_refused(tmp_path, monkeypatch, reruns, told):
    monkeypatch.setattr(opening, "check", lambda *_: None)
    desk = Desk(tmp_path)
    study = desk.begin()
    desk.store.reopen(study.id, {**study.spec, "workers": BEFORE, "budget": asdict(Budget(trials=2))})
    ledger = desk.ledger(study)
    for _ in range(2):
        ledger.ask()
    for each in range(reruns):
        ledger.add_rerun(0, each)
    with pytest.raises(BadInput, match=told):
        opening.onward(desk.store.study("study"), desk.store, Change(attention=["linear"]), the_host())
    assert desk.store.rows(tables.spaces, study.id) == []


def test_another_space_is_refused_where_the_time_is_used_up(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "used", lambda _: (40.0, 2.0))
    desk = Desk(tmp_path)
    study = desk.begin()
    desk.store.reopen(study.id, {**study.spec, "workers": BEFORE, "budget": asdict(Budget(seconds=30.0))})
    with pytest.raises(BadInput, match=r"has taken 40 seconds\. Give --trials or --time-budget too"):
        opening.onward(desk.store.study("study"), desk.store, Change(attention=["linear"]), the_host())


def test_a_study_that_cannot_go_on_keeps_what_it_found(tmp_path, monkeypatch):
    """GPU hours alone end nothing where no GPU is held, which is known when the workers are there."""
    monkeypatch.setattr(opening, "check", lambda *_: None)
    desk = Desk(tmp_path)
    study = finished(desk)
    desk.store.reopen(study.id, {**study.spec, "workers": Change(executor="inline").on(BEFORE)})
    desk.store.set_result(study.id, {"winner": 0})
    before = desk.store.study("study")
    desk.free()
    with pytest.raises(BadInput, match=r"--max-gpu-hours ends nothing where no GPU is held"):
        resume("study", desk.place, max_gpu_hours=50.0)
    assert desk.store.study("study") == before


def test_what_a_study_keeps_of_its_own_is_told(tmp_path, monkeypatch):
    found = SimpleNamespace(space=Space((), {}), left_out=())
    monkeypatch.setattr("deepmine_auto.changing.space_over", lambda *_, **__: found)
    monkeypatch.setattr("deepmine_auto.changing.rows_of", lambda *_: Rows((), ()))
    monkeypatch.setattr("deepmine_auto.changing.prepared_by", lambda *_: None)
    monkeypatch.setattr("deepmine_auto.changing.extra_of", lambda _: NOTHING_MORE)
    (tmp_path / "mine.toml").write_text('[plugins]\nsampler = "gp"\n[budget]\ntrials = 9\n')
    study = Desk(tmp_path).begin()
    study.spec.update({"task": "sentiment", "sampler": "tpe", "pruner": "asha", "budget": asdict(Budget(trials=3))})
    spaces = Spaces({"space": Space((), {}).to_json(), "space_name": "s"}, ())
    *_, notes = respaced(study, spaces, Change(space=str(tmp_path / "mine.toml")), the_host())
    assert notes == (f"sampler, pruner and budget of {tmp_path}/mine.toml are not used: a study keeps its own",)
