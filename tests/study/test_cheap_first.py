"""The first trials come cheapest first, and are those that the seed draws all the same."""

import originals
import pytest
from rows import WAYS, anything

from deepmine_auto.errors import BadInput
from deepmine_auto.host import the_host
from deepmine_auto.space import Choice, Int, Param, Space
from deepmine_auto.study.cheap_first import turns, work_of
from deepmine_auto.study.mirror import Mirror
from deepmine_auto.study.spaces import Spaces
from deepmine_plugins.backbones.pretrained import Pretrained
from deepmine_plugins.samplers.auto import Auto
from deepmine_plugins.samplers.gp import Gp
from deepmine_plugins.samplers.random import Random
from deepmine_plugins.samplers.tpe import Tpe
from deepmine_plugins.techniques.r_drop import RDrop

RECIPE = {"model/depth": 6, "training/epochs": 30, "technique/r_drop/use": True}
SPACE = Space(
    (
        Param("model/depth", Int(1, 6), {}),
        Param("training/epochs", Int(1, 30), {}),
        Param("technique/r_drop/use", Choice(False, True), {}),
    ),
    {"attention/kind": "multi_head", "model/kind": "encoder", "model/dim": 64, "optimizer/kind": "adamw"},
    (RECIPE,),
)
SPEC = {
    "task": "sentiment", "seed": 7, "directions": ["maximize"], "budget": {"trials": None},
    "space_name": "s", "space": SPACE.to_json(),
}  # fmt: skip


def proposed(spec, sampler, count):
    """The params of the first trials, none of which ends meanwhile."""
    spaces = Spaces(spec, ())
    mirror = Mirror(spaces, sampler, WAYS[:1], spec["seed"])
    return [spaces.complete(number, mirror.ask(number, anything).params) for number in range(count)]


@pytest.mark.parametrize("sampler", [Tpe(), Gp(), Auto()], ids=lambda each: each.name)
def test_after_the_recipe_the_first_trials_come_by_their_work_and_are_the_same(sampler):
    found = turns(SPEC, sampler, (), the_host())
    before, after = (proposed(spec, sampler, 10) for spec in (SPEC, {**SPEC, "turns": found}))
    works = [work_of("sentiment", each, the_host()) for each in after]
    assert after[0] == before[0]
    assert after[0].items() >= RECIPE.items()
    assert works[1:] == sorted(works[1:])
    assert works[1] < works[-1]
    assert sorted(map(str, after)) == sorted(map(str, before))
    assert found == turns(SPEC, sampler, (), the_host()), "the same seed, the same order"


def test_a_trial_is_the_dearer_the_deeper_the_longer_and_the_more_often_a_batch_is_learned():
    one = {**SPACE.fixed, "model/depth": 1, "training/epochs": 3, "technique/r_drop/use": False}
    work = work_of("sentiment", one, the_host())
    assert work == 3 * 64
    assert work_of("sentiment", {**one, "model/depth": 2}, the_host()) == 2 * work
    assert work_of("sentiment", {**one, "training/epochs": 9}, the_host()) == 3 * work
    assert work_of("sentiment", {**one, "technique/r_drop/use": True}, the_host()) == 2 * work


@pytest.mark.parametrize("make", [originals.bert, originals.distilbert, originals.t5], ids=lambda each: each.__name__)
def test_of_pretrained_models_the_larger_one_is_the_dearer(tmp_path, make):
    assert Pretrained(origin=str(make(tmp_path / "model"))).work() == 3 * 16


def test_with_few_trials_none_is_put_off_beyond_them():
    few = turns({**SPEC, "budget": {"trials": 4}}, Tpe(), (), the_host())
    assert sorted(few) == [0, 1, 2, 3]
    assert few[0] == 0


def test_a_sampler_that_looks_at_trials_from_the_beginning_is_not_put_in_another_order():
    assert turns(SPEC, Random(), (), the_host()) == []
    evidence = ({"number": 0},)
    assert turns(SPEC, Tpe(), evidence, the_host()) == [], "it looks at those of another study"


def test_in_a_later_space_trials_keep_their_turns():
    spec = {**SPEC, "turns": [0, 3, 1, 2]}
    later = {"since": 2, "name": "later", "space": SPACE.to_json()}
    assert [Spaces(spec, ()).turn(each) for each in range(6)] == [0, 3, 1, 2, 4, 5]
    assert [Spaces(spec, (later,)).turn(each) for each in range(6)] == [0, 3, 2, 3, 4, 5]


@pytest.mark.parametrize(("work", "why"), [(0.0, "it says 0.0"), (float("nan"), "it says nan"), (None, "TypeError")])
def test_a_plugin_that_does_not_say_its_work_is_refused(monkeypatch, work, why):
    monkeypatch.setattr(RDrop, "work", lambda _: work)
    with pytest.raises(BadInput, match=f"The technique 'r_drop' does not say how much work it makes: {why}"):
        turns(SPEC, Tpe(), (), the_host())
