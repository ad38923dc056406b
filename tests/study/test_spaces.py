"""The search spaces of a study, one after the other."""

from dataclasses import replace

import optuna
import pytest
from fakes import SPACE as LEDGERS
from fakes import Desk, quick, training_is
from rows import SPACE, spaces_of

from deepmine_auto.executors import inline
from deepmine_auto.space import Choice, Float, Int, Param, Space
from deepmine_auto.storage import tables
from deepmine_auto.study.budget import Budget
from deepmine_auto.study.spaces import Spaces, changes
from deepmine_plugins.samplers.random import Random

WIDER = Space(SPACE.params, {"training/epochs": 5})


def test_a_trial_belongs_to_the_space_that_held_when_it_was_drawn():
    spaces = spaces_of(SPACE, (4, WIDER))
    assert [spaces.at(number) for number in (0, 3, 4, 99)] == [SPACE, SPACE, WIDER, WIDER]
    assert [spaces.name(number) for number in (0, 3, 4)] == ["s", "s", "s4"]
    assert spaces.now == WIDER


def test_what_a_space_fixed_holds_for_its_trials_for_ever():
    spaces = spaces_of(SPACE, (4, WIDER))
    assert spaces.complete(3, {"attention/kind": "a"}) == {"attention/kind": "a", "training/epochs": 3}
    assert spaces.complete(4, {"attention/kind@2": "b"}) == {"attention/kind": "b", "training/epochs": 5}


def test_of_two_spaces_from_one_trial_on_the_later_holds():
    rows = [{"since": 0, "name": "again", "space": WIDER.to_json()}]
    spaces = Spaces({"space_name": "s", "space": SPACE.to_json()}, rows)
    assert (spaces.at(0), spaces.name(0)) == (WIDER, "again")


def with_recipes(*values):
    return Space(SPACE.params, SPACE.fixed, tuple({"optimizer/adamw/lr": each} for each in values))


def turns(spaces):
    return {number: each["optimizer/adamw/lr"] for number in range(20) if (each := spaces.recipe(number))}


def test_each_space_begins_with_its_own_recipes_and_none_is_tried_twice():
    spaces = spaces_of(with_recipes(0.01, 0.02), (5, with_recipes(0.02, 0.03)), (9, with_recipes(0.03)))
    assert turns(spaces) == {0: 0.01, 1: 0.02, 5: 0.03}


def test_a_recipe_whose_turn_did_not_come_is_tried_in_the_next_space_if_it_is_there_too():
    first = with_recipes(0.01, 0.02, 0.03)
    assert turns(spaces_of(first, (1, with_recipes(0.01, 0.03)))) == {0: 0.01, 1: 0.03}
    assert turns(spaces_of(first, (1, with_recipes()))) == {0: 0.01}


# -- what a new space changes ------------------------------------------------------------------------------------------


def one(each, **fixed):
    return Space((Param("x/y", each, {}),) if each else (), fixed)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (one(Choice("a", "b")), one(Choice("a", "b", "c")), "x/y gains c."),
        (one(Choice("a", "b")), one(Choice("b")), "x/y loses a."),
        (one(Choice("a", "b")), one(Choice("b", "c", "d")), "x/y gains c, d and loses a."),
        (one(Int(1, 2)), one(Int(1, 4)), "x/y was a whole number from 1 to 2, and is a whole number from 1 to 4."),
        (
            one(Float(1.0, 2.0)),
            one(Float(1.0, 2.0, log=True)),
            "x/y was a number from 1 to 2, and is a number from 1 to 2, log.",
        ),
        (
            one(Int(0, 4)),
            one(Int(0, 4, step=2)),
            "x/y was a whole number from 0 to 4, and is a whole number from 0 to 4, in steps of 2.",
        ),
        (one(Int(1, 2)), one(Choice(1, 2)), "x/y was a whole number from 1 to 2, and is one of 1, 2."),
        (one(None, **{"x/y": 3}), one(None, **{"x/y": 5}), "x/y was 3, and is 5."),
        (one(None, **{"x/y": 3}), one(Int(1, 9)), "x/y was 3, and is a whole number from 1 to 9."),
        (one(None), one(Int(1, 9)), "x/y is new."),
        (one(Int(1, 9)), one(None), "x/y is not searched any more."),
    ],
)
def test_what_a_new_space_changes_is_told_in_a_sentence(old, new, told):
    assert changes(old, new) == [told]
    assert changes(new, new) == []


@pytest.mark.parametrize(
    "new",
    [
        replace(SPACE, recipes=({"attention/kind": "b"},)),
        Space((Param("attention/kind", Choice("b", "a"), {}), *SPACE.params[1:]), SPACE.fixed),
        Space((*SPACE.params, Param("attention/a/sinks", Int(0, 4), {"attention/kind": ("a",)})), SPACE.fixed),
    ],
)
def test_no_change_goes_without_a_sentence(new):
    assert changes(SPACE, new) == ["Recipes, conditions or the order of choices are others."]


def test_a_plugin_that_comes_or_goes_is_told_without_its_params():
    use = Param("technique/ema/use", Choice(False, True), {})
    decay = Param("technique/ema/decay", Float(0.9, 0.99), {"technique/ema/use": (True,)})
    more = Space((*SPACE.params, use, decay), SPACE.fixed)
    assert changes(SPACE, more) == ["technique/ema/use is new."]
    assert changes(more, SPACE) == ["technique/ema/use is not searched any more."]


# -- a study that goes on in another space -----------------------------------------------------------------------------


def search(desk, study, trials):
    """Search without finals."""
    agenda = desk.agenda(study, Budget(trials=trials))
    agenda._reruns_left = list
    with training_is(quick):
        inline.run(agenda, None, lambda: None)
    return agenda


def test_a_study_goes_on_in_another_space_with_the_same_rows_numbers_and_budget(tmp_path):
    desk = Desk(tmp_path, sampler=Random())
    study = desk.begin()
    search(desk, study, 4)
    before = [each.params for each in desk.trials(study)]
    running = desk.agenda(study, Budget(trials=5)).next()
    others = Space((Param("attention/kind", Choice("good", "new"), {}), *LEDGERS.params[1:]), {"training/epochs": 5})
    desk.store.add(tables.spaces, study.id, {"since": 5, "name": "s2", "space": others.to_json()})

    ledger = desk.ledger(study)
    again = ledger.adopt(("trial", 4), "resumed")
    assert again.params == running.params
    assert again.params["training/epochs"] == 3, "what was fixed when it was drawn"

    agenda = search(desk, study, 12)
    rows = desk.trials(study)
    assert [each.number for each in rows] == list(range(12))
    assert [each.params for each in rows[:4]] == before
    assert ["attention/kind@2" in each.params for each in rows] == [False] * 5 + [True] * 7
    assert {each.params["attention/kind@2"] for each in rows[5:]} == {"good", "new"}
    assert all(number in agenda.best_values() for number in range(12)), "every row may still win"
    assert {"attention/kind", "optimizer/adamw/lr"} <= agenda.ledger.add_rerun(0, 0).params.keys()
    stock = optuna.load_study(study_name="study", storage=desk.store.storage)
    assert len(stock.trials) == 12
