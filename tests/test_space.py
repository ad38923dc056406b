"""Ranges, and what plugins bring to a space."""

import json
import math
from dataclasses import dataclass
from typing import Annotated

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmine_auto.errors import BadInput
from deepmine_auto.host import the_host
from deepmine_auto.space import Choice, Float, Int, Param, Space, defaults, join, plain, plugin_from, ranges, relevant
from deepmine_auto.training.recipe import Recipe, WarmUp

bounds = st.tuples(st.integers(1, 50), st.integers(0, 50)).map(lambda pair: (pair[0], pair[0] + pair[1]))
any_range = st.one_of(
    st.builds(lambda pair, log: Int(*pair, log=log), bounds, st.booleans()),
    st.builds(lambda pair, log: Float(*map(float, pair), log=log), bounds, st.booleans()),
    st.builds(
        lambda options, searched: Choice(*options, searched=searched),
        st.lists(st.one_of(st.integers(), st.booleans(), st.text(max_size=3)), min_size=1, max_size=4),
        st.booleans(),
    ),
)


@given(any_range, st.integers(0, 99))
def test_whatever_is_drawn_from_a_range_lies_in_it(each, seed):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    assert each.suggest(study.ask(), "x") in each


@given(st.lists(any_range, min_size=1, max_size=4))
def test_a_space_survives_json(found):
    params = tuple(Param(f"p{at}", each, {} if at == 0 else {"p0": (1, "a", True)}) for at, each in enumerate(found))
    space = Space(params, {"q": 1, "r": True}, ({"p0": 1},))
    assert Space.from_json(json.loads(json.dumps(space.to_json()))) == space


@pytest.mark.parametrize(
    ("each", "inside", "outside"),
    [
        (Int(1, 5), [1, 5], [0, 6, 2.0, True, "2", None]),
        (Float(0.5, 2.0), [0.5, 1, 2.0], [0.4, 3, float("nan"), float("inf"), "1", True]),
        (Choice(1, 2), [1, 2], [True, 1.0, "1", 3]),
        (Choice(False, True), [True, False], [1, 0, "true"]),
    ],
)
def test_a_value_lies_in_a_range_only_with_its_type(each, inside, outside):
    assert all(value in each for value in inside)
    assert not any(value in each for value in outside)


@pytest.mark.parametrize(
    ("kind", "bounds", "more", "why"),
    [
        (Int, (0, 9), {"log": True}, r"is logarithmic, and begins at 0\. Begin above 0, or leave log out"),
        (Float, (0.0, 1.0), {"log": True}, r"is logarithmic, and begins at 0\. Begin above 0, or leave log out"),
        (Int, (16, 512), {"log": True, "step": 16}, r"has a step and is logarithmic\. Leave one of them out"),
        (Float, (1.0, 2.0), {"log": True, "step": 0.5}, r"has a step and is logarithmic\. Leave one of them out"),
        (Int, (1, 9), {"step": 0}, r"has the step 0\. Give a step above 0"),
        (Float, (1.0, 9.0), {"step": -1.0}, r"has the step -1\. Give a step above 0"),
        (Int, (9, 1), {}, r"holds no number\. Give a low that is not above high"),
        (Float, (0.0, math.inf), {}, r"holds no number\. Give a low that is not above high, both finite"),
        (Float, (math.nan, 1.0), {}, r"holds no number\. Give a low that is not above high, both finite"),
    ],
)
def test_a_range_that_nothing_can_be_drawn_from_is_refused_where_it_is_written(kind, bounds, more, why):
    with pytest.raises(BadInput, match=rf"The range {kind.__name__}\(.*\) {why}"):
        kind(*bounds, **more)


# -- what plugins bring ------------------------------------------------------------------------------------------------


def chosen(**names):
    """Plugins of ours by kind."""
    usual = {"attention": ["multi_head"], "backbone": ["encoder"], "optimizer": ["adamw"], "technique": []}
    asked = {**usual, "schedule": ["cosine", "warmup_stable_decay"], **names}
    return {kind: {name: the_host().get(kind, name) for name in each} for kind, each in asked.items()}


ALWAYS = {"schedule": WarmUp, "training": Recipe}


def names(params):
    return {each.name for each in params}


def test_a_plugins_params_exist_only_where_it_is_chosen():
    space = Space(join(chosen(attention=["multi_head", "sliding_window"], technique=["ema"]), ALWAYS), {})
    for kind in ("multi_head", "sliding_window"):
        for use in (False, True):
            given_values = {"attention/kind": kind, "technique/ema/use": use}
            drawn = space.draw(lambda param, given=given_values: given.get(param.name, 0))
            assert ("attention/sliding_window/window" in drawn) == (kind == "sliding_window")
            assert ("technique/ema/decay" in drawn) == use


def test_a_schedules_params_exist_only_where_it_is_chosen_and_warm_up_with_all_of_them():
    space = Space(join(chosen(), ALWAYS), {})
    for kind in ("cosine", "warmup_stable_decay"):
        drawn = space.draw(lambda param, kind=kind: kind if param.name == "schedule/kind" else 0)
        assert ("schedule/warmup_stable_decay/cooldown" in drawn) == (kind == "warmup_stable_decay")
        assert "schedule/warmup" in drawn


def test_modifiers_combine_with_cores_and_never_with_mixers():
    space = Space(join(chosen(attention=["multi_head", "differential", "rotary"]), ALWAYS), {})
    for kind, there in (("multi_head", True), ("differential", False)):
        drawn = space.draw(lambda param, kind=kind: kind if param.name == "attention/kind" else False)
        assert ("attention/rotary/use" in drawn) == there


@pytest.mark.parametrize("first", [False, True])
def test_of_two_techniques_that_judge_other_weights_one_at_most_is_drawn(first):
    params = join(chosen(technique=["ema", "layer_decay", "weight_average"]), {})
    space = Space(tuple(each for each in params if each.name.startswith("technique/")), {})
    uses = {f"technique/{name}/use": True for name in ("ema", "layer_decay", "weight_average")}
    given_values = {**uses, "technique/ema/use": first}
    drawn = space.draw(lambda param: given_values.get(param.name, getattr(param.range, "low", None)))
    assert ("technique/weight_average/use" in drawn) == (not first)
    assert drawn["technique/layer_decay/use"]
    assert space.fit(drawn) == drawn
    assert space.fit({**drawn, **uses}) is None


def test_the_reserved_names_are_used():
    params = names(join(chosen(technique=["ema"]), ALWAYS))
    assert {"attention/kind", "model/kind", "model/depth", "model/dim", "model/heads", "model/encoder/dropout",
            "optimizer/kind", "optimizer/adamw/lr", "schedule/kind", "schedule/warmup", "training/epochs",
            "technique/ema/use", "technique/ema/decay"} <= params  # fmt: skip
    assert "model/encoder/depth" not in params


def test_conditions_come_before_what_depends_on_them():
    params = join(chosen(attention=["multi_head", "rotary", "sliding_window"], technique=["ema"]), ALWAYS)
    seen = set()
    for each in params:
        assert set(each.when) <= seen
        seen.add(each.name)


def test_kinds_are_drawn_in_an_order_that_never_changes_so_that_a_seed_finds_the_same():
    params = join(chosen(technique=["ema"]), ALWAYS)
    kinds = ["attention", "model", "optimizer", "technique", "schedule", "training"]
    assert [*dict.fromkeys(each.name.split("/")[0] for each in params)] == kinds


@dataclass(frozen=True, kw_only=True)
class Plain:
    depth: Annotated[int, Int(1, 3)] = 2
    name: str = "unsearched"
    needed: Annotated[int, Int(1, 3)]


def test_a_field_without_a_range_is_not_searched():
    assert ranges(Plain) == {"depth": Int(1, 3), "needed": Int(1, 3)}
    assert defaults(Plain) == {"depth": 2}


def test_a_plugin_is_built_from_what_stands_under_its_prefixes():
    built = plugin_from(Plain, {"a/depth": 3, "b/needed": 1, "c/depth": 9, "depth": 9}, "a", "b")
    assert built == Plain(depth=3, needed=1)


# -- one space's params in another -------------------------------------------------------------------------------------

USE = Param("technique/ema/use", Choice(False, True), {})
DECAY = Param("technique/ema/decay", Float(0.9, 0.999), {"technique/ema/use": (True,)})
KINDS = Param("attention/kind", Choice("a", "b"), {})
WINDOW = Param("attention/a/window", Int(1, 9), {"attention/kind": ("a",)})
DEPTH = Param("model/depth", Int(1, 4), {})
SMALL = Space((KINDS, WINDOW, DEPTH), {"training/epochs": 3})
LARGE = Space((KINDS, WINDOW, DEPTH, USE, DECAY), {"training/epochs": 3})
OF_A = {"attention/kind": "a", "attention/a/window": 4, "model/depth": 2}
OF_B = {"attention/kind": "b", "model/depth": 2}


@given(st.integers(0, 200))
def test_a_space_can_say_all_that_was_drawn_from_it(seed):
    techniques = chosen(attention=["multi_head", "differential", "rotary", "sliding_window"], technique=["ema"])
    space = Space(join(techniques, ALWAYS), {"data/tokens": "words"})
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed)).ask()
    drawn = space.draw(lambda param: param.range.suggest(trial, param.name))
    assert space.fit(space.complete(drawn)) == drawn


def test_names_of_rows_become_plain_names():
    assert plain({"attention/kind@2": "a", "model/depth": 1}) == {"attention/kind": "a", "model/depth": 1}
    assert SMALL.complete({"attention/kind@3": "b"}) == {"attention/kind": "b", "training/epochs": 3}


def test_params_count_only_where_their_plugin_is_used():
    params = {**OF_B, "attention/a/window": 4, "technique/ema/use": False, "technique/ema/decay": 0.9}
    assert relevant(params) == OF_B
    used = {**OF_A, "technique/ema/use": True, "technique/ema/decay": 0.9}
    assert relevant(used) == used


@pytest.mark.parametrize(
    ("params", "space", "found"),
    [
        (OF_A, Space((KINDS, WINDOW, DEPTH), {}), OF_A),
        (OF_A, LARGE, {**OF_A, "technique/ema/use": False}),
        ({**OF_A, "technique/ema/use": False}, SMALL, OF_A),
        ({**OF_A, "technique/ema/use": True, "technique/ema/decay": 0.95}, SMALL, None),
        ({**OF_A, "technique/ema/use": True, "technique/ema/decay": 0.5}, LARGE, None),
        (OF_A, Space((Param("attention/kind", Choice("b", "c"), {}), DEPTH), {}), None),
        (OF_B, Space((Param("attention/kind", Choice("b", "c"), {}), DEPTH), {}), OF_B),
        (OF_A, Space((KINDS, Param("attention/a/window", Int(5, 9), WINDOW.when), DEPTH), {}), None),
        (OF_B, Space((KINDS, Param("attention/a/window", Int(5, 9), WINDOW.when), DEPTH), {}), OF_B),
        (OF_B, Space((KINDS, DEPTH, Param("model/dim", Int(1, 9), {})), {}), OF_B),
        ({**OF_B, "training/epochs": 3}, SMALL, OF_B),
        ({**OF_B, "training/epochs": 5}, SMALL, None),
        (OF_B, Space((KINDS, DEPTH), {"technique/ema/use": True, "technique/ema/decay": 0.9}), None),
        (OF_B, Space((KINDS, DEPTH, USE), {"technique/ema/decay": 0.9}), {**OF_B, "technique/ema/use": False}),
        (
            {**OF_B, "training/epochs": 5},
            Space((KINDS, DEPTH, Param("training/epochs", Int(1, 9), {})), {}),
            {**OF_B, "training/epochs": 5},
        ),
    ],
)
def test_params_fit_another_space_where_it_could_have_drawn_them(params, space, found):
    assert space.fit(params) == found


@pytest.mark.parametrize(
    ("attention", "backbone", "when"),
    [
        (["multi_head"], ["pretrained"], None),
        (["multi_head", "sliding_window"], ["encoder"], None),
        (["sigmoid", "sliding_window"], ["pretrained"], {}),
        (["multi_head", "sliding_window"], ["pretrained"], {"attention/kind": ("sliding_window",)}),
        (["multi_head", "learned_temperature"], ["pretrained"], {}),
        (["multi_head", "sliding_window"], ["encoder", "pretrained"],
         {"attention/kind": ("sliding_window",), "model/kind": ("pretrained",)}),
    ],
)  # fmt: skip
def test_healing_is_searched_where_there_is_something_to_heal(attention, backbone, when):
    plugins = chosen(attention=attention, backbone=backbone, technique=["healing"], tuning=["full"])
    found = {each.name: each.when for each in join(plugins, ALWAYS)}
    assert found.get("technique/healing/use") == when
    assert ("technique/healing/share" in found) == (when is not None)
