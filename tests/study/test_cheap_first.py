"""The first trials come cheapest first, and are those that the seed draws all the same."""

import originals
import pytest
from rows import Rows

from deepmine_auto.errors import BadInput
from deepmine_auto.host import the_host
from deepmine_auto.space import Choice, Int, Param, Space
from deepmine_auto.study.cheap_first import first_draws, work_of
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
    "task": "sentiment", "seed": 7, "directions": ["maximize"], "budget": {"trials": None}, "parts": {"train": 100},
    "space_name": "s", "space": SPACE.to_json(),
}  # fmt: skip


def proposed(spec, sampler, count):
    """The params of the first trials, each of which ends before the next."""
    rows = Rows(Spaces(spec, ()), sampler)
    return [rows.spaces.complete(number, rows.end(0.5).params) for number in range(count)]


def works(found):
    return [work_of(SPEC, each, the_host()) for each in found]


@pytest.mark.parametrize("sampler", [Tpe(), Gp(), Auto()], ids=lambda each: each.name)
def test_after_the_recipe_the_first_trials_come_by_their_work_and_are_the_same(sampler):
    found = first_draws(SPEC, sampler, (), the_host())
    before, after = (proposed(spec, sampler, 10) for spec in (SPEC, {**SPEC, "first": found}))
    assert after[0] == before[0]
    assert after[0].items() >= RECIPE.items()
    assert works(after[1:]) == sorted(works(after[1:]))
    assert works(after)[1] < works(after)[-1]
    assert sorted(map(str, after)) == sorted(map(str, before))
    assert found == first_draws(SPEC, sampler, (), the_host()), "the same seed, the same order"


def test_in_a_space_that_is_soon_used_up_they_come_by_their_work_too():
    few = Space((Param("model/depth", Int(1, 6), {}),), {**SPACE.fixed, "training/epochs": 3})
    spec = {**SPEC, "space": few.to_json(), "budget": {"trials": 6}}
    after = proposed({**spec, "first": first_draws(spec, Tpe(), (), the_host())}, Tpe(), 6)
    assert [each["model/depth"] for each in after] == [1, 2, 3, 4, 5, 6]


def test_a_trial_is_the_dearer_the_deeper_the_longer_and_the_more_often_a_batch_is_learned():
    one = {**SPACE.fixed, "model/depth": 1, "training/epochs": 3, "technique/r_drop/use": False}
    (work,) = works([one])
    assert work == 3 * 100 * 64
    assert works([{**one, "training/rows": 250}]) == [250 * 64]
    deeper, longer, twice = {"model/depth": 2}, {"training/epochs": 9}, {"technique/r_drop/use": True}
    assert works({**one, **each} for each in (deeper, longer, twice)) == [2 * work, 3 * work, 2 * work]
    additive = {"attention/kind": "additive"}
    hybrid = {"placement/kind": "hybrid", "placement/hybrid/kind": "additive", "placement/hybrid/ratio": 3}
    assert works({**one, **each} for each in (additive, hybrid)) == [2 * work, work]


@pytest.mark.parametrize("make", [originals.distilbert, originals.t5], ids=lambda each: each.__name__)
def test_of_pretrained_models_the_larger_one_is_the_dearer(tmp_path, make):
    large = originals.bert(tmp_path / "large", hidden_size=32, num_hidden_layers=4)
    works = [Pretrained(origin=str(each)).work() for each in (make(tmp_path / "model"), large)]
    assert works == [3 * 16, 4 * 32]


def test_with_few_trials_none_is_put_off_beyond_them():
    few = {**SPEC, "budget": {"trials": 4}}
    first = proposed({**few, "first": first_draws(few, Tpe(), (), the_host())}, Tpe(), 4)
    assert sorted(map(str, first)) == sorted(map(str, proposed(few, Tpe(), 4)))


def test_a_sampler_that_looks_at_trials_from_the_beginning_is_not_put_in_another_order():
    assert first_draws(SPEC, Random(), (), the_host()) == []
    assert len(first_draws(SPEC, Tpe(), ({},) * 6, the_host())) == 3, "six of ten are those of another study"
    assert first_draws(SPEC, Tpe(), ({},) * 60, the_host()) == []


def test_a_later_space_has_its_own_first_trials():
    spec = {**SPEC, "first": first_draws(SPEC, Tpe(), (), the_host())}
    later = {"since": 2, "name": "later", "space": SPACE.to_json()}
    assert [Spaces(spec, ()).recipe(each) for each in range(10)] == [RECIPE, *spec["first"]]
    assert [Spaces(spec, (later,)).recipe(each) for each in range(4)] == [RECIPE, spec["first"][0], None, None]
    at_once = Spaces(spec, ({**later, "since": 0},))
    assert [at_once.recipe(each) for each in range(3)] == [RECIPE, None, None]


@pytest.mark.parametrize("told", [None, -1, 2.5])
def test_a_sampler_that_does_not_say_how_many_it_draws_by_chance_is_refused(monkeypatch, told):
    monkeypatch.setattr(Tpe, "startup", lambda _: told)
    with pytest.raises(BadInput, match=f"The sampler 'tpe' says that it draws {told!r} trials by chance"):
        first_draws(SPEC, Tpe(), (), the_host())


def test_no_more_than_a_hundred_are_put_in_order():
    assert len(first_draws(SPEC, Tpe(n_startup_trials=10**9), (), the_host())) == 99


def test_a_plugin_that_cannot_be_made_is_left_to_its_trial(monkeypatch):
    def refuse(_):
        raise ValueError("no such thing")

    monkeypatch.setattr(RDrop, "__post_init__", refuse, raising=False)
    assert len(first_draws(SPEC, Tpe(), (), the_host())) == 9


@pytest.mark.parametrize(("work", "why"), [(0.0, "it says 0.0"), (float("nan"), "it says nan"), (None, "TypeError")])
def test_a_plugin_that_does_not_say_its_work_is_refused(monkeypatch, work, why):
    monkeypatch.setattr(RDrop, "work", lambda _: work)
    with pytest.raises(BadInput, match=f"The technique 'r_drop' does not say how much work it makes: {why}"):
        first_draws(SPEC, Tpe(), (), the_host())
