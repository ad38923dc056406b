"""Layers of one variant, and some of another."""

import pytest
import torch

from deepmine_auto import Source
from deepmine_auto.host import the_host
from deepmine_auto.model.assemble import build_model, plugins_of
from deepmine_auto.model.guard import Refused
from deepmine_auto.model.multi_head import MultiHead
from deepmine_auto.space import essential, relevant

PARAMS = {
    "attention/kind": "sliding_window",
    "model/kind": "encoder",
    "model/depth": 5,
    "model/dim": 32,
    "model/heads": 2,
    "data/tokens": "word",
}
HYBRID = {"placement/kind": "hybrid", "placement/hybrid/ratio": 2, "placement/hybrid/kind": "multi_head"}


THREE = ("rotary", "qk_norm", "learned_temperature")


def layers_of(**more):
    task = the_host().get("task", "sentiment")(tokens="word")
    prepared = task.prepare(task.read(Source()).take(range(60)))
    model = build_model({**PARAMS, **more}, task, prepared, the_host())
    mixings = [each for each in model.modules() if isinstance(each, MultiHead)]
    outputs = model(torch.ones(2, 7, dtype=torch.long), torch.ones(2, 7, dtype=torch.bool)).out
    assert outputs.isfinite().all()
    return [each.variants for each in mixings]


def names(layers):
    return [" ".join(each.name for each in variants) for variants in layers]


def test_one_variant_takes_all_layers_unless_another_is_placed_among_them():
    assert names(layers_of()) == ["sliding_window"] * 5
    assert names(layers_of(**{"placement/kind": "same"})) == ["sliding_window"] * 5


def test_after_each_so_many_layers_stands_one_of_the_other_kind():
    local, other = "sliding_window", "multi_head"
    assert names(layers_of(**HYBRID)) == [local, local, other, local, local]


def test_a_modifier_changes_the_layers_that_it_can():
    found = layers_of(**{**HYBRID, "placement/hybrid/kind": "linear", "attention/rotary/use": True})
    assert names(found) == ["sliding_window rotary"] * 2 + ["linear rotary"] + ["sliding_window rotary"] * 2
    mixed = {**HYBRID, "placement/hybrid/kind": "differential", "attention/rotary/use": True}
    task = the_host().get("task", "sentiment")(tokens="word")
    prepared = task.prepare(task.read(Source()).take(range(60)))
    assert build_model({**PARAMS, **mixed}, task, prepared, the_host())
    with pytest.raises(Refused, match=r"'rotary' changes a core, and 'differential' is none\. Leave one"):
        build_model({**mixed, **PARAMS, "attention/kind": "differential"}, task, prepared, the_host())


def test_what_normalises_goes_before_what_scales():
    names_of = " ".join(each.name for each in layers_of(**{f"attention/{each}/use": True for each in THREE})[0])
    assert names_of == "sliding_window qk_norm learned_temperature rotary"


def test_the_other_kind_is_among_the_plugins_of_a_trial_and_its_params_count():
    assert ("attention", "multi_head") in plugins_of("sentiment", {**PARAMS, **HYBRID})
    assert relevant({**PARAMS, **HYBRID}).keys() >= HYBRID.keys()
    assert not relevant({**PARAMS, **HYBRID, "placement/kind": "same"}).keys() & {"placement/hybrid/kind"}


def test_a_hybrid_of_one_kind_or_with_no_layer_for_the_other_is_known_as_the_same_trial():
    plain = essential(PARAMS)
    assert essential({**PARAMS, "placement/kind": "same"}) == plain
    assert essential({**PARAMS, **HYBRID}) == {**PARAMS, **HYBRID}
    assert essential({**PARAMS, **HYBRID, "placement/hybrid/kind": "sliding_window"}) == plain
    unplaced = {**HYBRID, "placement/hybrid/ratio": 5}
    assert essential({**PARAMS, **unplaced}) == plain
    assert names(layers_of(**unplaced)) == names(layers_of()), "the fifth layer is the last"
    assert essential({**PARAMS, **unplaced, "model/depth": 6}).keys() >= HYBRID.keys()
    assert essential(HYBRID) == HYBRID, "of a recipe that says nothing of the rest"
    for name in HYBRID:
        recipe = {each: value for each, value in {**PARAMS, **HYBRID}.items() if each != name}
        assert essential(recipe) == recipe, f"of a recipe that leaves {name} to the sampler"
