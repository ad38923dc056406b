"""Tunings and attention variants that exclude each other are not searched where nothing else is there for them."""

from dataclasses import dataclass
from typing import ClassVar

import originals
import pytest
from test_skeleton import planned, ranges_of, skeleton_of

from deepmine_auto import Tuning, linears_of
from deepmine_auto.errors import BadInput
from deepmine_auto.host import the_host
from deepmine_auto.pretrained import pairs
from deepmine_auto.pretrained.skeleton import tunable
from deepmine_auto.space_file.reading import SpaceFile

SOFTMAX_ALONE = "This tuning adds to softmax attention, and variants stand in the place of the pretrained model's."
COUNTING = "Vectors before the words change what a model says even where nobody looks at them."
NO_ROOM = "Vectors before the words do not fit: 'cosformer' takes at most 64 tokens, not 80."


@pytest.fixture
def bert(tmp_path):
    return originals.bert(tmp_path / "bert")


def searched(folder, tuning, attention, host=None, **fixed):
    """The tunings and variants that are left, and what is told of the others."""
    plugins, left_out = {"backbone": ["pretrained"], "tuning": tuning, "attention": attention}, []
    file = SpaceFile("own.toml", plugins, ranges=fixed)
    left = tunable(file, [skeleton_of(folder)], left_out, host or the_host()).plugins
    return left["tuning"], left["attention"], left_out


@pytest.mark.parametrize("kind", [originals.bert, originals.llama])
@pytest.mark.parametrize(
    ("tuning", "attention", "why"),
    [
        ("prefix", ["sliding_window", "sigmoid"], SOFTMAX_ALONE),
        ("prompt", ["strided"], COUNTING),
        ("prompt", ["cosformer"], NO_ROOM),
    ],
)
def test_a_tuning_that_goes_with_no_variant_of_the_search_is_left_out(tmp_path, kind, tuning, attention, why):
    left = searched(kind(tmp_path / "model"), ["full", tuning], attention)
    told = f"left out: {tuning} goes with none of the attentions {', '.join(attention)}, as they are by default: {why}"
    assert left == (["full"], attention, [told])


@pytest.mark.parametrize(
    ("tuning", "attention"),
    [("prefix", ["sliding_window", "multi_head"]), ("prompt", ["strided", "sliding_window"]), ("lora", ["strided"])],
)
def test_a_tuning_that_goes_with_one_of_them_stays(bert, tuning, attention):
    assert searched(bert, [tuning, "full"], attention) == ([tuning, "full"], attention, [])


def test_a_variant_that_goes_with_no_tuning_of_the_search_is_left_out(bert):
    asked = ["sliding_window", "multi_head", "learned_temperature"]
    tunings, attention, told = searched(bert, ["prefix"], asked)
    assert (tunings, attention) == (["prefix"], ["multi_head", "learned_temperature"])
    assert told == [
        f"left out: sliding_window goes with none of the tunings prefix, as they are by default: {SOFTMAX_ALONE}"
    ]


def test_where_all_exclude_each_other_the_search_is_refused(bert):
    with pytest.raises(BadInput, match=r"^prefix goes with none of the attentions sigmoid, .*\. Choose multi_head, or"):
        searched(bert, ["prefix"], ["sigmoid"])


def test_softmax_that_a_modifier_always_changes_is_no_softmax(bert):
    asked, always = ["multi_head", "learned_temperature"], {"attention/learned_temperature/use": True}
    assert searched(bert, ["full", "prefix"], asked, **always)[0] == ["full"]
    assert searched(bert, ["full", "prefix"], asked)[0] == ["full", "prefix"]


def test_only_the_variants_that_a_file_leaves_count(bert):
    asked, fixed = ["multi_head", "sigmoid"], {"attention/kind": "sigmoid"}
    assert searched(bert, ["full", "prefix"], asked, **fixed)[0] == ["full"]


def test_they_are_tried_as_a_file_fixes_them(bert):
    fixed = {"attention/strided/block": 32, "tuning/prompt/length": 32}  # words keep their places within a block
    assert searched(bert, ["full", "prompt"], ["strided"], **fixed)[0] == ["full", "prompt"]


def test_a_variant_that_cannot_stand_in_a_model_says_nothing_of_tunings(bert):
    assert searched(bert, ["full", "prefix"], ["moba", "sigmoid"])[0] == ["full"]
    assert searched(bert, ["full", "prefix"], ["moba"]) == (["full", "prefix"], ["moba"], [])


@dataclass(frozen=True, kw_only=True)
class Named(Tuning):
    """A stranger's tuning, of layers that DistilBERT has and BERT has not under this name."""

    name: ClassVar[str] = "named"
    source: ClassVar[str] = "none"

    def apply(self, model):
        linears_of(model, "q_lin")


class Host:
    """The host, with that tuning beside ours."""

    def get(self, kind, name):
        return Named if name == "named" else the_host().get(kind, name)


def test_a_tuning_that_the_small_model_itself_refuses_is_not_held_against_a_variant(tmp_path):
    folder = originals.distilbert(tmp_path / "distilbert")
    assert searched(folder, ["full", "named"], ["sigmoid"], Host()) == (["full", "named"], ["sigmoid"], [])


def test_where_softmax_alone_is_searched_nothing_is_tried(bert, monkeypatch):
    monkeypatch.delattr(pairs._Kind, "refusal")
    assert searched(bert, ["full", "prefix"], ["multi_head"]) == (["full", "prefix"], ["multi_head"], [])


def test_a_plan_leaves_out_a_tuning_that_would_be_refused_in_every_trial(tmp_path, bert):
    (tmp_path / "space.toml").write_text('[plugins]\ntuning = ["full", "prefix"]\n')
    found = planned(tmp_path, bert, space=str(tmp_path / "space.toml"), attention=["sigmoid"])
    assert ranges_of(found)["tuning/kind"].options == ("full",)
    assert any(note.startswith("left out: prefix goes with none of the attentions sigmoid") for note in found.notes)


@pytest.mark.parametrize(
    ("tuning", "left"), [(["full", "prefix"], ("multi_head", "sliding_window")), (["prefix"], ("multi_head",))]
)
def test_a_plan_leaves_out_a_variant_where_it_would_be_refused_in_every_trial_and_nowhere_else(
    tmp_path, bert, tuning, left
):
    (tmp_path / "space.toml").write_text(f"[plugins]\ntuning = {tuning}\n")
    found = planned(tmp_path, bert, space=str(tmp_path / "space.toml"), attention=["multi_head", "sliding_window"])
    assert ranges_of(found)["tuning/kind"].options == tuple(tuning)
    assert ranges_of(found)["attention/kind"].options == left
    told = any("sliding_window goes with none of the tunings prefix," in note for note in found.notes)
    assert told == ("sliding_window" not in left)
