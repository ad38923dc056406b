"""A warm start: what an earlier study says of a new one."""

from dataclasses import replace

import pytest
from fakes import SPACE, Desk
from optuna.trial import TrialState, create_trial

from deepmine_auto.errors import BadInput
from deepmine_auto.objectives import Objective
from deepmine_auto.space import Choice, Param, Space
from deepmine_auto.storage import tables
from deepmine_auto.study.budget import Budget
from deepmine_auto.study.names import distribution_of
from deepmine_auto.study.warm import warm_start

NEW = {"task": "t", "objectives": ["f"], "fingerprint": "0", "seed": 7, "content": "0", "locked": "0"}
BASE = {"model/kind": "encoder", "optimizer/kind": "adamw", "technique/ema/use": False}
RANGES = {each.name: each.range for each in SPACE.params}


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def params_of(lr, kind="bad", **more):
    return {**BASE, "attention/kind": kind, "optimizer/adamw/lr": lr, **more}


def write(desk, study, params, *values, state="COMPLETE", curve=None, steps=9, constraints=None, **attrs):
    """Write a trial with its end, and what it reported of so many steps."""
    row = create_trial(
        state=TrialState[state],
        values=values or None,
        params=params,
        distributions={name: distribution_of(RANGES[name]) for name in params},
        intermediate_values=curve,
        user_attrs=attrs,
        system_attrs={f"constraints:{name}": each for name, each in (constraints or {}).items()},
    )
    trial_id = desk.store.storage.create_new_trial(study.id, row)
    for step, value in (curve or {}).items():
        report(desk, study, desk.store.storage.get_trial(trial_id).number, step, round(1000 * step / steps), value)


def report(desk, study, number, step, share, value):
    seq = 1 + len(desk.store.rows(tables.reports, study.id))
    row = {"seq": seq, "kind": "trial", "number": number, "attempt": 1, "step": step, "share": share, "value": value}
    desk.store.add(tables.reports, study.id, {**row, "metrics": {"f": value}, "seconds": 1.0})


def warmth_of(desk, *names, spec=NEW, space=SPACE):
    return warm_start([(desk.store, name) for name in names], spec, space)


def lrs(found):
    return [each["optimizer/adamw/lr"] for each in found]


def ranks(warmth):
    return {row["params"]["optimizer/adamw/lr"]: row["rank"] for row in warmth.evidence}


def test_the_best_params_are_tried_first_and_every_ended_trial_is_evidence(desk):
    study = desk.begin("old")
    for lr, value in ((0.001, 0.1), (0.002, 0.9), (0.003, 0.5), (0.004, 0.7)):
        write(desk, study, params_of(lr), value)
    write(desk, study, params_of(0.005), state="RUNNING")
    found = warmth_of(desk, "old")
    assert lrs(found.recipes) == [0.002, 0.004, 0.003]
    assert found.recipes[0] == params_of(0.002)
    assert ranks(found) == {0.002: 0.75, 0.004: 0.5, 0.003: 0.25, 0.001: 0.0}
    assert [row["number"] for row in found.evidence] == [0, 1, 2, 3]
    assert {row["source"] for row in found.evidence} == {"old"}
    assert found.evidence[0]["params"] == {**params_of(0.002), "training/epochs": 3}, "with what its space fixed"
    assert found.notes == ("warm start: 4 of 4 trials of the study 'old' fit this search space",)


def test_where_smaller_is_better_the_smallest_are_tried_first(desk):
    study = desk.begin("old", direction="minimize")
    for lr, value in ((0.001, 0.1), (0.002, 0.9)):
        write(desk, study, params_of(lr), value)
    assert lrs(warmth_of(desk, "old").recipes) == [0.001, 0.002]


def test_pruned_trials_rank_below_complete_ones_and_what_params_broke_last(desk):
    study = desk.begin("old")
    write(desk, study, params_of(0.001), state="FAIL", cause="memory")
    write(desk, study, params_of(0.002), 0.99, state="PRUNED", curve={1: 0.99}, cause="pruned")
    write(desk, study, params_of(0.003), 0.2, state="PRUNED", curve={1: 0.1, 3: 0.2}, cause="pruned")
    write(desk, study, params_of(0.004), 0.1, cause="budget")
    write(desk, study, params_of(0.005), 0.3, state="PRUNED", curve={3: 0.3}, cause="pruned")
    write(desk, study, params_of(0.006), state="PRUNED", cause="diverged")
    found = warmth_of(desk, "old")
    assert lrs(row["params"] for row in found.evidence) == [0.004, 0.005, 0.003, 0.002, 0.001, 0.006]
    assert [row["rank"] for row in found.evidence] == [5 / 6, 4 / 6, 3 / 6, 2 / 6, 0.0, 0.0]
    assert lrs(found.recipes) == [0.004], "what was never trained to its end is not tried first"


def test_pruned_trials_rank_by_the_share_of_their_own_steps_that_they_came_to(desk):
    study = desk.begin("old")
    write(desk, study, params_of(0.001), 0.9, state="PRUNED", curve={100: 0.9}, steps=900, cause="pruned")
    write(desk, study, params_of(0.002), 0.1, state="PRUNED", curve={30: 0.1}, steps=90, cause="pruned")
    assert ranks(warmth_of(desk, "old")) == {0.002: 0.5, 0.001: 0.0}


def test_what_only_broke_a_limit_or_a_machine_says_nothing(desk):
    study = desk.begin("old")
    write(desk, study, params_of(0.001), 0.9, constraints={"latency_ms<=5": 1.0}, cause="budget")
    write(desk, study, params_of(0.002), state="PRUNED", constraints={"latency_ms<=5": 1.0}, cause="limit")
    write(desk, study, params_of(0.003), state="FAIL", cause="lost")
    write(desk, study, params_of(0.004), 0.1, constraints={"latency_ms<=5": -1.0}, cause="budget")
    assert ranks(warmth_of(desk, "old")) == {0.004: 0.0}


def test_the_winner_comes_before_better_values_that_were_luck(desk):
    study = desk.begin("old")
    for lr, value in ((0.001, 0.9), (0.002, 0.8), (0.003, 0.1)):
        write(desk, study, params_of(lr), value)
    desk.store.set_result(study.id, {"winner": 1})
    assert lrs(warmth_of(desk, "old").recipes) == [0.002, 0.001, 0.003]


def test_a_winner_that_the_deadline_had_cut_off_before_it_was_trained_again_comes_first(desk):
    study = desk.begin("old")
    write(desk, study, params_of(0.001), 0.5, cause="budget")
    write(desk, study, params_of(0.002), 0.7, state="PRUNED", curve={3: 0.7}, cause="deadline")
    write(desk, study, params_of(0.003), 0.8, state="PRUNED", curve={3: 0.8}, cause="deadline")
    desk.store.set_result(study.id, {"winner": 1, "rerun": None})
    assert lrs(warmth_of(desk, "old").recipes) == [0.001], "it may have been luck"
    desk.store.set_result(study.id, {"winner": 1, "rerun": 0})
    found = warmth_of(desk, "old")
    assert lrs(found.recipes) == [0.002, 0.001]
    assert lrs(row["params"] for row in found.evidence) == [0.002, 0.001, 0.003]


def test_of_several_objectives_those_of_the_new_study_rank_the_old_one(desk):
    (desk.folder / "old").mkdir()
    spec = {
        **NEW,
        "objective": "f",
        "objectives": ["f", "latency_ms"],
        "seed": 1,
        "space": SPACE.to_json(),
        "space_name": "s",
    }
    objectives = [Objective("f", "maximize"), Objective("latency_ms", "minimize")]
    study = desk.store.create_study("old", objectives, str(desk.folder / "old"), spec)
    for lr, values in ((0.001, (0.9, 9.0)), (0.002, (0.5, 9.0)), (0.003, (0.1, 1.0))):
        write(desk, study, params_of(lr), *values)
    assert lrs(warmth_of(desk, "old").recipes) == [0.001, 0.002, 0.003]
    both = warmth_of(desk, "old", spec=spec)
    assert lrs(both.recipes) == [0.001, 0.003, 0.002], "the front first"
    latency = {**NEW, "objectives": ["latency_ms"]}
    assert lrs(warmth_of(desk, "old", spec=latency).recipes) == [0.003, 0.001, 0.002]


# -- another space, other studies ------------------------------------------------------------------------------------


def test_only_what_the_new_space_can_say_counts(desk):
    study = desk.begin("old")
    write(desk, study, params_of(0.001, "good", **{"attention/good/width": 2}), 0.9)
    write(desk, study, params_of(0.002), 0.5)
    narrow = Space((Param("attention/kind", Choice("bad", "other"), {}), *SPACE.params[2:]), SPACE.fixed)
    found = warmth_of(desk, "old", space=narrow)
    assert lrs(found.recipes) == [0.002]
    assert ranks(found) == {0.002: 0.0}, "it keeps the rank that it had in its own study"
    assert found.notes[0].startswith("warm start: 1 of 2 trials")


def test_recipes_of_the_space_follow_and_none_comes_twice(desk):
    for name in ("old", "older"):
        write(desk, desk.begin(name), params_of(0.001), 0.9)
    own = {"optimizer/adamw/lr": 0.05}
    space = replace(SPACE, recipes=(own, params_of(0.001)))
    found = warmth_of(desk, "old", "older", space=space)
    assert found.recipes == (own, params_of(0.001)), "the baseline stays the first trial"
    assert [(row["number"], row["source"]) for row in found.evidence] == [(0, "old"), (1, "older")]
    assert len(found.notes) == 2


def test_rows_of_a_study_whose_space_changed_are_read_by_their_own_space(desk):
    study = desk.begin("old")
    write(desk, study, params_of(0.001), 0.9)
    desk.store.add(
        tables.spaces,
        study.id,
        {"since": 1, "name": "s2", "space": replace(SPACE, fixed={"training/epochs": 5}).to_json()},
    )
    write(desk, study, params_of(0.002), 0.5)
    assert ranks(warmth_of(desk, "old")) == {0.001: 0.5}
    assert [row["params"]["training/epochs"] for row in warmth_of(desk, "old").evidence] == [3]


def test_studies_of_another_database_warm_one_too(desk, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    other = Desk(tmp_path / "elsewhere")
    write(other, other.begin("old"), params_of(0.001), 0.9)
    assert len(warm_start([(other.store, "old")], NEW, SPACE).evidence) == 1


def test_what_was_found_on_other_data_says_so(desk):
    write(desk, desk.begin("old"), params_of(0.001), 0.9)
    (note,) = warmth_of(desk, "old", spec={**NEW, "fingerprint": "1"}).notes
    assert (
        note == "warm start: 1 of 1 trials of the study 'old', which was searched on other data, fit this search space"
    )


@pytest.mark.parametrize(
    ("name", "spec", "space", "told"),
    [
        ("odl", NEW, SPACE, r"'odl' is no study to start from\. Did you mean 'old'\?"),
        ("old", {**NEW, "task": "u"}, SPACE, r"'old' is of the task 't', and this one of 'u'\. A warm start wants"),
        ("old", {**NEW, "objectives": ["g"]}, SPACE, r"'old' was not searched for g\. It was for f: see --objective"),
        ("old", NEW, replace(SPACE, fixed={"training/epochs": 9}), r"No trial of the study 'old' fits this"),
        ("old", {**NEW, "seed": 8}, SPACE,
         r"'old' has learned from rows that would be the locked test of this one\. Split the rows as it did"),
    ],
)  # fmt: skip
def test_a_study_that_says_nothing_here_is_refused(desk, name, spec, space, told):
    write(desk, desk.begin("old"), params_of(0.001), 0.9)
    with pytest.raises(BadInput, match=told):
        warmth_of(desk, name, spec=spec, space=space)


def test_a_study_with_another_test_is_refused_whatever_its_seed(desk):
    study = desk.begin("old")
    write(desk, study, params_of(0.001), 0.9)
    desk.store.reopen(study.id, {**study.spec, "content": "0", "locked": "0"})
    assert warmth_of(desk, "old", spec={**NEW, "seed": 8}).recipes
    with pytest.raises(BadInput, match=r"Split the rows as it did: in its order, with --seed 7\."):
        warmth_of(desk, "old", spec={**NEW, "locked": "1"})
    assert warmth_of(desk, "old", spec={**NEW, "locked": "1", "content": "1"}).recipes, "other rows"


def test_a_study_that_was_warmed_tries_the_recipes_first_and_shows_the_evidence(desk):
    old = desk.begin("old")
    for at in range(1, 16):
        write(desk, old, params_of(at / 1000), at / 100)
    found = warmth_of(desk, "old")
    study = desk.begin("new", space=replace(SPACE, recipes=found.recipes))
    for row in found.evidence:
        desk.store.add(tables.evidence, study.id, row)
    desk.work(study, Budget(trials=5))
    rows = desk.trials(study)
    assert len(rows) == 5, "evidence is no row"
    assert [each.params["optimizer/adamw/lr"] for each in rows[:3]] == [0.015, 0.014, 0.013]
    assert len(desk.ledger(study).mirror.study.get_trials()) == 5 + 15
