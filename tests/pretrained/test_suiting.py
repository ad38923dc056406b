"""Techniques, tunings and options of these that find nothing to change in a pretrained model are not searched."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import originals
import pytest
from test_skeleton import planned, ranges_of, skeleton_of

from deepmine_auto import Choice, Tuning, linears_of
from deepmine_auto.admission import unsuited, wordless
from deepmine_auto.errors import BadInput
from deepmine_auto.host import the_host
from deepmine_auto.pretrained.skeleton import tunable
from deepmine_auto.space_file.reading import SpaceFile
from deepmine_plugins.backbones.encoder import Encoder
from deepmine_plugins.backbones.pretrained import Pretrained
from deepmine_plugins.techniques.synonyms import Synonyms


def space(folder, plugins, ranges=""):
    file = folder / "space.toml"
    file.write_text(f'[plugins]\nattention = ["multi_head"]\n{plugins}\n[ranges]\n{ranges}\n')
    return str(file)


# -- techniques --------------------------------------------------------------------------------------------------------

WORDS = 'tuning = ["full"]\ntechnique = ["synonyms", "ema"]'


def test_a_technique_that_needs_vectors_of_words_is_left_out_with_the_reason(tmp_path):
    found = planned(tmp_path, originals.bert(tmp_path / "bert"), space=space(tmp_path, WORDS))
    assert "left out: 'synonyms' needs vectors of words, and a pretrained model reads pieces of them" in found.notes
    assert [each for each in ranges_of(found) if each.endswith("/use")] == ["technique/ema/use"]


@pytest.mark.parametrize("wish", ["true", "[true]"])
def test_a_technique_that_needs_vectors_of_words_is_refused_where_it_is_fixed_on(tmp_path, wish):
    own = space(tmp_path, WORDS, f'"technique/synonyms/use" = {wish}')
    with pytest.raises(BadInput, match=r"space\.toml: 'synonyms' needs vectors of words, .*\. Leave synonyms out\.$"):
        planned(tmp_path, originals.bert(tmp_path / "bert"), space=own)


def test_beside_a_backbone_that_learns_from_nothing_a_technique_may_need_vectors_of_words():
    assert wordless(Synonyms, [Encoder]) == ""
    assert wordless(Synonyms, [Encoder, Pretrained]).startswith("'synonyms' needs vectors of words")


def test_what_others_trained_may_see_the_answers_where_they_stand_in_the_rows():
    assert unsuited(Pretrained, the_host().get("task", "characters")).startswith("'pretrained' would see the answers")


# -- options of tunings ------------------------------------------------------------------------------------------------


def test_an_option_of_a_tuning_that_names_what_a_model_lacks_is_left_out_with_what_it_has(tmp_path):
    folder = originals.xlm(tmp_path / "xlm")
    found = planned(tmp_path, folder, space=space(tmp_path, 'tuning = ["full", "lora"]'))
    assert ranges_of(found)["tuning/kind"].options == ("full", "lora")
    assert ranges_of(found)["tuning/lora/targets"].options == ("linear",)
    told = f"left out: lora with targets = attention does not suit {folder}: XLMModel has no such layer as 'attention'"
    (note,) = [each for each in found.notes if "lora" in each]
    assert note.startswith(told)
    assert "q_lin" in note


def test_a_recipe_with_an_option_that_is_left_out_is_not_tried(tmp_path):
    recipe = '[[recipes]]\n"tuning/kind" = "lora"\n"tuning/lora/targets" = "{}"\n'
    recipes = "".join(map(recipe.format, ["attention", "linear"]))
    own = space(tmp_path, 'tuning = ["full", "lora"]', recipes)
    found = planned(tmp_path, originals.xlm(tmp_path / "xlm"), space=own).spec["space"]["recipes"]
    assert [each["tuning/lora/targets"] for each in found] == ["linear"]


def test_a_tuning_whose_only_option_names_what_a_model_lacks_is_left_out(tmp_path):
    fixed = space(tmp_path, 'tuning = ["full", "lora"]', '"tuning/lora/targets" = "attention"')
    found = planned(tmp_path, originals.xlm(tmp_path / "xlm"), space=fixed)
    assert ranges_of(found)["tuning/kind"].options == ("full",)
    assert any(note.startswith("left out: lora does not suit ") for note in found.notes)


def test_where_the_only_option_of_the_only_tuning_names_what_a_model_lacks_it_is_refused(tmp_path):
    wishes = '"tuning/kind" = "lora"\n"tuning/lora/targets" = ["attention"]'
    fixed = space(tmp_path, 'tuning = ["full", "lora"]', wishes)
    with pytest.raises(BadInput, match=r"XLMModel has no such layer as 'attention' in .*\. Choose another tuning"):
        planned(tmp_path, originals.xlm(tmp_path / "xlm"), space=fixed)


def test_an_option_that_there_is_not_is_refused_as_ever(tmp_path):
    fixed = space(tmp_path, 'tuning = ["lora"]', '"tuning/lora/targets" = "query"')
    with pytest.raises(BadInput, match=r"'tuning/lora/targets' is 'query'\. It must be one of attention, linear"):
        planned(tmp_path, originals.bert(tmp_path / "bert"), space=fixed)


@dataclass(frozen=True, kw_only=True)
class Named(Tuning):
    """A stranger's tuning, of layers that it calls by their names."""

    name: ClassVar[str] = "named"
    source: ClassVar[str] = "none"

    targets: Annotated[str, Choice("qurey", "value")] = "qurey"

    def apply(self, model):
        linears_of(model, self.targets)


class Host:
    """The host, with that tuning beside ours."""

    def get(self, kind, name):
        return Named if name == "named" else the_host().get(kind, name)


def tuned(folder, *names, **ranges):
    left_out, ranges = [], {f"tuning/named/{name}": each for name, each in ranges.items()}
    file = SpaceFile("own.toml", {"tuning": names, "attention": ["multi_head"]}, ranges=ranges)
    return tunable(file, [skeleton_of(folder)], left_out, Host()), left_out


def test_a_name_that_no_layer_has_is_told_with_the_nearest_before_a_search(tmp_path):
    file, (note,) = tuned(originals.bert(tmp_path / "bert"), "named")
    assert file.ranges == {"tuning/named/targets": ["value"]}
    assert "BertModel has no such layer as 'qurey' in the blocks to be tuned, but query" in note


def test_where_no_name_is_that_of_a_layer_the_tuning_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(BadInput, match=r"no such layer as 'qurey' in the blocks to be tuned, but query, .*\. Choose"):
        tuned(originals.bert(tmp_path / "bert"), "named", targets="qurey")
