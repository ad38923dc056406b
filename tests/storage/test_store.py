"""The queries: what is read is what Optuna would read, and what is written of one study changes no other."""

import pytest
from fakes import Desk
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution, distribution_to_json
from optuna.trial import TrialState, create_trial
from sqlalchemy import event

from deepmine_auto.storage import store


@pytest.fixture
def desk(tmp_path, place):
    return Desk(tmp_path, place=place)


# -- trials ------------------------------------------------------------------------------------------------------------


def test_all_trials_are_read_once_and_in_order_whatever_is_written_meanwhile(desk, monkeypatch):
    monkeypatch.setattr(store, "READ_AT_ONCE", 4)
    study = desk.begin_and_work("study")
    storage, stock = desk.store.storage, desk.store.storage._get_trials
    there = storage.get_all_trials(study.id)
    assert len(there) == 5

    def meanwhile(*asked):
        storage.create_new_trial(study.id)
        return stock(*asked)

    monkeypatch.setattr(storage, "_get_trials", meanwhile)
    assert desk.store.trials(study.id) == there


def test_trials_share_what_they_have_in_common_and_nothing_else(desk):
    study = desk.begin()
    for high in (1.0, 1.0, 2.0):
        template = create_trial(params={"x": 0.5}, distributions={"x": FloatDistribution(0.0, high)}, value=0.5)
        desk.store.storage.create_new_trial(study.id, template)
    trials = desk.store.trials(study.id)
    assert trials == desk.store.storage.get_all_trials(study.id)
    assert trials[0].distributions is trials[1].distributions
    assert len({id(name) for each in trials for name in (*each.params, *each.distributions)}) == 1


def test_choices_that_python_calls_equal_stay_what_they_are_and_are_shared_by_kind(desk):
    """Else their params would be called otherwise after each resume, and a replay would not agree."""
    study = desk.begin()
    choices = [(1, 2), (1.0, 2.0), (True, 2), (1, 2)]
    ranges = [CategoricalDistribution(each) for each in choices]
    for number, each in enumerate(ranges):
        template = create_trial(state=TrialState.RUNNING, params={"x": each.choices[1]}, distributions={"x": each})
        desk.store.add_trial(study.id, number, template)
    read = [each.distributions for each in desk.store.trials(study.id)]
    assert [distribution_to_json(each["x"]) for each in read] == [distribution_to_json(each) for each in ranges]
    assert read[0] is read[3]


RANGES = {
    "rate": FloatDistribution(1e-5, 1.0, log=True),
    "depth": IntDistribution(1, 9, step=2),
    "kind": CategoricalDistribution(["linear", 3, None, True]),
}


@pytest.mark.parametrize("ranges", [RANGES, {}], ids=["params", "none"])
def test_a_new_trial_is_what_optuna_itself_would_have_written(desk, ranges):
    study, storage = desk.begin(), desk.store.storage
    chosen = {name: value for name, value in (("rate", 0.01), ("depth", 5), ("kind", None)) if name in ranges}
    attrs = {"user_attrs": {"note": {"a": [1]}}, "system_attrs": {"deepmine:known": "0-3"}} if ranges else {}
    template = create_trial(state=TrialState.RUNNING, params=chosen, distributions=ranges, **attrs)
    theirs = storage.get_trial(storage.create_new_trial(study.id, template))
    own = desk.store.add_trial(study.id, 1, template)
    assert own.number == theirs.number + 1
    assert own == storage.get_trial(own._trial_id)
    own.number, own._trial_id = theirs.number, theirs._trial_id
    assert own == theirs


def test_a_new_trial_takes_as_many_statements_whatever_its_params(desk):
    study, counts = desk.begin(), []
    for number, ranges in enumerate(({"rate": RANGES["rate"]}, RANGES)):
        params = {"rate": 0.01, "depth": 5, "kind": 3}
        chosen = {name: params[name] for name in ranges}
        template = create_trial(state=TrialState.RUNNING, params=chosen, distributions=ranges)
        seen = []
        event.listen(desk.store.engine, "before_cursor_execute", lambda *_, seen=seen: seen.append(1))
        desk.store.add_trial(study.id, number, template)
        counts.append(len(seen))
    assert counts[0] == counts[1]


# -- studies -----------------------------------------------------------------------------------------------------------


def test_a_space_that_no_trial_came_to_is_replaced_and_an_earlier_one_is_kept(desk):
    study = desk.begin()
    for since, name in ((0, "first"), (5, "mistaken"), (5, "second")):
        desk.store.set_space(study.id, since, name, {})
    kept = [(row["since"], row["name"]) for row in desk.store.rows(store.tables.spaces, study.id)]
    assert sorted(kept) == [(0, "first"), (5, "second")]


@pytest.mark.parametrize(
    "write",
    [
        lambda on, study: on.set_result(study.id, {"winner": 1}),
        lambda on, study: on.reopen(study.id, {**study.spec, "reopened": 0}),
    ],
    ids=["set_result", "reopen"],
)
def test_what_is_written_of_a_study_changes_no_other(desk, write):
    for each in (desk.begin("one"), desk.begin("two")):
        desk.store.set_result(each.id, {"winner": 0})
    one, two = desk.store.study("one"), desk.store.study("two")
    write(desk.store, one)
    assert desk.store.study("one") != one
    assert desk.store.study("two") == two


def test_an_event_may_hold_a_character_that_postgresql_refuses(desk):
    study = desk.begin()
    desk.store.add_event(study.id, "note", "a\0b")
    assert [row["text"] for row in desk.store.rows(store.tables.events, study.id)] == ["a b"]
