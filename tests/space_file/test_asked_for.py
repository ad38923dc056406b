"""What a user asks for in the place of a space's variants and tunings, and beside its techniques."""

from types import SimpleNamespace

import originals
import pytest

from deepmine_auto.changing import Change, _file
from deepmine_auto.errors import BadInput
from deepmine_auto.host import the_host
from deepmine_auto.planning.plan import plan
from deepmine_auto.planning.request import Request
from deepmine_auto.space import Space
from deepmine_auto.space_file.asked_for import KIND, RATE, asked_for
from deepmine_auto.space_file.reading import read_space
from deepmine_auto.study.spaces import Spaces
from deepmine_plugins.tasks.text_classification import OwnTexts

ROWS = "text,label\n" + "\n".join(f"{word} {number} word,{word}" for word in ("good", "bad") for number in range(20))


def with_asked(space="pretrained", *, attention=(), tuning=(), technique=()):
    asked = SimpleNamespace(attention=attention, tuning=tuning, technique=technique)
    return asked_for(read_space(space), asked, OwnTexts, the_host())


def planned(folder, **asked):
    (folder / "rows.csv").write_text(ROWS)
    return plan(
        Request(task="text_classification", data=str(folder / "rows.csv"), trials=1, storage=str(folder / "studies.db"),
                attention="multi_head", **asked), the_host(),
    )  # fmt: skip


def space_of(plan):
    return Space.from_json(plan.spec["space"])


def test_where_nothing_is_asked_for_a_space_stays_as_it_is():
    assert with_asked() == read_space("pretrained")


def test_a_tuning_that_a_recipe_has_begins_with_that_recipe():
    file = with_asked(tuning=["lora"])
    assert file.plugins["tuning"] == ["lora"]
    assert file.recipes == [each for each in read_space("pretrained").recipes if each[KIND] == "lora"]


def test_any_other_tuning_begins_as_the_first_recipe_at_the_learning_rate_that_suits_it():
    first = read_space("pretrained").recipes[0]
    file = with_asked(tuning=["full", "vera", "dora"])
    *published, vera, dora = file.recipes
    assert [each[KIND] for each in published] == ["full", "full"]
    assert vera == {**first, KIND: "vera", RATE: 1e-2}
    assert dora == {**first, KIND: "dora", RATE: 1e-3}
    assert file.ranges[RATE] == {"low": 1e-5, "high": 1e-2}, "as wide as VeRA needs"


@pytest.mark.parametrize("rates", ["[1e-4, 2e-4]", "1e-4"])
def test_learning_rates_that_a_user_lists_stay_as_they_are(tmp_path, rates):
    (tmp_path / "own.toml").write_text(f'[ranges]\n"{RATE}" = {rates}\n[[recipes]]\n"{KIND}" = "full"\n')
    file = with_asked(str(tmp_path / "own.toml"), tuning="vera")
    assert file.recipes == [{KIND: "vera"}]
    assert file.ranges == read_space(str(tmp_path / "own.toml")).ranges


def test_a_technique_is_searched_beside_those_of_the_space_and_the_first_recipe_tried_with_it():
    before = read_space("pretrained")
    file = with_asked(technique=["ema", "fgm", "word_dropout"])
    assert {*file.plugins["technique"]} == {*before.plugins["technique"], "ema", "fgm"}
    none, ema, fgm, word_dropout, *others = file.recipes
    assert [each["technique/ema/use"] for each in (none, ema, fgm, word_dropout)] == [False, True, False, False]
    assert [each["technique/fgm/use"] for each in (none, ema, fgm, word_dropout)] == [False, False, True, False]
    assert word_dropout["technique/word_dropout/use"]
    assert len(others) == len(before.recipes) - 1


def test_of_two_that_say_which_weights_are_judged_a_recipe_has_one(tmp_path):
    space = planned(tmp_path, technique=["ema", "checkpoint_soup"]).spec["space"]
    uses = [
        [each.get(f"technique/{name}/use", False) for name in ("ema", "checkpoint_soup")] for each in space["recipes"]
    ]
    assert [True, False] in uses
    assert [False, True] in uses
    assert [True, True] not in uses


def test_what_there_is_not_and_what_cannot_train_the_task_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"'vero' is no tuning\. Did you mean 'vera'"):
        with_asked(tuning="vero")
    with pytest.raises(BadInput, match=r"'emma' is no technique\. Did you mean 'ema'"):
        with_asked(technique=["emma"])
    asked = SimpleNamespace(attention=(), tuning=(), technique="mixup")
    with pytest.raises(BadInput, match=r"'mixup' is for rows of one answer, .*\. Leave mixup out"):
        asked_for(read_space("default"), asked, the_host().get("task", "characters"), the_host())


def test_a_tuning_of_nothing_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"there is none\. Give --backbone MODEL"):
        planned(tmp_path, tuning="lora")


def test_a_technique_that_a_model_has_nothing_for_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"'synonyms' .*\. Leave synonyms out"):
        planned(tmp_path, backbone=str(originals.bert(tmp_path / "bert")), technique="synonyms")


def test_of_several_models_each_is_tried_as_published(tmp_path):
    models = [str(kind(tmp_path / kind.__name__)) for kind in (originals.bert, originals.roberta)]
    space = space_of(planned(tmp_path, backbone=[*models, "encoder"], tuning=["full", "lora"]))
    tried = [(each[KIND], each["model/pretrained/origin"]) for each in space.recipes]
    assert tried == [(kind, model) for kind in ("full", "full", "lora") for model in models]
    assert {each["model/kind"] for each in space.recipes} == {"pretrained"}


def test_a_study_goes_on_with_the_tunings_and_techniques_that_it_was_asked_for(tmp_path):
    model = str(originals.bert(tmp_path / "bert"))
    before = planned(tmp_path, backbone=model, tuning=["dora", "bitfit"], technique="fgm").spec
    file = _file(Spaces(before, ()), Change(attention="sigmoid", technique="ema"), OwnTexts, the_host())
    assert file.plugins["tuning"] == ["dora", "bitfit"]
    assert {"fgm", "ema"} < {*file.plugins["technique"]}
    assert len(file.recipes) == len(before["space"]["recipes"]) + 1, "but for the new one they are those of before"
    assert file.ranges["model/pretrained/origin"] == model
