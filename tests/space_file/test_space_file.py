"""Search space files: what they choose, and errors that name the file, the key, and the nearest right one."""

import re
from dataclasses import replace
from typing import get_args

import pytest

from deepmine_auto.contracts import Given
from deepmine_auto.data.rows import Extra
from deepmine_auto.errors import BadInput, MissingExtra
from deepmine_auto.host import the_host
from deepmine_auto.space import Choice, Float, Int, Param
from deepmine_auto.space_file.adding import LEARNERS, SPOKEN_GIVEN, reading_longest
from deepmine_auto.space_file.building import build_space
from deepmine_auto.space_file.narrowing import narrowed
from deepmine_auto.space_file.reading import bundled, read_space, space_for
from deepmine_auto.study.budget import Budget

BASE = """
[plugins]
attention = ["multi_head", "sliding_window"]
backbone = ["encoder"]
optimizer = ["adamw"]
technique = ["ema"]
sampler = "random"
pruner = "median"

[budget]
trials = 5
time = "1h30m"
"""


@pytest.fixture
def file(tmp_path):
    """Writes a file and returns its path."""

    def write(text):
        (tmp_path / "mine.toml").write_text(text)
        return str(tmp_path / "mine.toml")

    return write


def space_of(path, task="text_classification"):
    asked = the_host().get("task", task)
    return build_space(read_space(path), the_host(), asked, admit_all)


def admit_all(variants, _backbones):
    """Leave nothing out."""
    return dict(variants)


def test_a_file_chooses_plugins_sampler_pruner_and_budget(file):
    found = read_space(file(BASE))
    assert (found.sampler, found.pruner, found.budget) == ("random", "median", Budget(5, 5400.0))
    params = {each.name: each.range for each in space_of(file(BASE)).params}
    assert params["attention/kind"] == Choice("multi_head", "sliding_window")
    assert params["optimizer/kind"] == Choice("adamw")
    assert "technique/ema/use" in params
    assert "data/tokens" in params


def test_where_a_file_names_none_all_of_a_kind_are_chosen_but_no_technique(file):
    params = {each.name: each.range for each in space_of(file("")).params}
    cores = {name for name, each in the_host().offered("attention").items() if f"attention/{name}/use" not in params}
    assert set(params["attention/kind"].options) == cores
    assert not [name for name in params if name.startswith("technique/")]


def test_where_a_file_names_no_schedule_all_that_are_installed_are_searched(file):
    params = {each.name: each.range for each in space_of(file(BASE)).params}
    assert params["schedule/kind"] == Choice(*sorted(the_host().offered("schedule")))
    assert params["schedule/warmup"] == Float(0.0, 0.3)
    few = BASE.replace("[budget]", 'schedule = ["linear", "constant"]\n[budget]')
    params = {each.name: each.range for each in space_of(file(few)).params}
    assert params["schedule/kind"] == Choice("linear", "constant")
    assert [each for each in params if each.startswith("schedule/")] == ["schedule/kind", "schedule/warmup"]


@pytest.mark.parametrize("name", bundled())
def test_spaces_of_ours_search_the_schedules_that_they_always_did_and_name_one_in_each_recipe(name):
    found = read_space(name)
    assert found.plugins["schedule"] == ["cosine", "linear", "constant"], "in this order a seeded search draws the same"
    assert all(each["schedule/kind"] in found.plugins["schedule"] for each in found.recipes)


def test_ranges_may_be_quoted_or_nested(file):
    quoted = space_of(file(BASE + '[ranges]\n"model/depth" = { low = 2, high = 3 }\n"model/dim" = 64\n'))
    nested = space_of(file(BASE + "[ranges.model]\ndepth = { low = 2, high = 3 }\ndim = 64\n"))
    assert quoted == nested
    assert quoted.fixed == {"model/dim": 64}
    assert {each.name: each.range for each in quoted.params}["model/depth"] == Int(2, 3)


def test_a_kind_or_use_that_is_fixed_keeps_its_condition():
    only = {"model/kind": ("pretrained",)}
    params = [Param("tuning/kind", Choice("full", "lora"), only), Param("model/depth", Int(1, 4), only)]
    kept, fixed = narrowed(params, {"tuning/kind": "lora", "model/depth": 2}, "mine.toml")
    assert kept == (Param("tuning/kind", Choice("lora"), only),)
    assert fixed == {"model/depth": 2}


@pytest.mark.parametrize(
    ("said", "searched", "fixed"),
    [
        ("", None, None),
        ('"training/batching" = "tokens"', None, "tokens"),
        ('"training/batching" = ["rows", "tokens"]', Choice("rows", "tokens"), None),
    ],
)
def test_what_batches_have_in_common_is_searched_only_where_a_file_says_so(file, said, searched, fixed):
    space = space_of(file(f"{BASE}[ranges]\n{said}\n"))
    assert {each.name: each.range for each in space.params}.get("training/batching") == searched
    assert space.fixed.get("training/batching") == fixed


def test_a_recipe_sets_no_choice_that_is_not_searched(file):
    text = BASE + '[[recipes]]\n"training/batching" = "tokens"\n'
    with pytest.raises(BadInput, match=r"a recipe sets 'training/batching', which is searched only where \[ranges\]"):
        space_of(file(text))
    found = space_of(file(text + '[ranges]\n"training/batching" = ["rows", "tokens"]\n'))
    assert found.recipes[0]["training/batching"] == "tokens"


# -- techniques and tasks ----------------------------------------------------------------------------------------------

OF_ONE_ANSWER = ["token_swap", "mixup", "synonyms", "balanced_sampling", "paraphrases", "pseudo_labels"]


@pytest.mark.parametrize("name", OF_ONE_ANSWER)
def test_a_technique_for_rows_of_one_answer_is_refused_where_each_token_has_its_own(file, name):
    asked = file(f'[plugins]\ntechnique = ["ema", "{name}"]\n')
    why = f"mine.toml: '{name}' is for rows of one answer, and in 'needle' each token has its own. Leave {name} out."
    with pytest.raises(BadInput, match=re.escape(why)):
        space_of(asked, "needle")
    assert f"technique/{name}/use" in {each.name for each in space_of(asked).params}


def test_a_space_of_ours_leaves_it_out_with_all_that_it_says_of_it():
    use, share = "technique/token_swap/use", "technique/token_swap/share"
    ours = replace(
        read_space("default"),
        plugins={"attention": ["multi_head"], "technique": ["token_swap", "ema"]},
        ranges={share: {"low": 0.1, "high": 0.2}},
        recipes=[{use: True, share: 0.15, "technique/ema/use": True}],
    )
    plain, tokens = (
        build_space(ours, the_host(), the_host().get("task", each), admit_all)
        for each in ("text_classification", "needle")
    )
    assert plain.recipes[0][use] is True
    assert not [name for name in ({each.name for each in tokens.params} | {*tokens.recipes[0]}) if "token_swap" in name]
    assert tokens.recipes[0]["technique/ema/use"] is True


# -- spaces of ours ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["list_ops", "needle", "associative_recall"])
@pytest.mark.parametrize("name", ["default", "zoo"])
def test_a_space_of_ours_suits_tasks_that_take_less(name, task):
    own = {each.name: each.range for each in space_of(name, task).params if each.name.startswith("data/")}
    assert all("glove" not in getattr(each, "options", ()) for each in own.values())


def test_a_file_of_the_users_says_nothing_that_the_task_does_not_take(file):
    with pytest.raises(BadInput, match=r"mine\.toml: 'data/tokens' is 'glove'\. It must be"):
        space_of(file('[ranges]\n"data/tokens" = ["glove"]\n'), "list_ops")


def test_a_file_is_found_again_from_anywhere_and_not_taken_for_one_of_ours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sentiment.toml").write_text(BASE)
    mine = read_space("./sentiment.toml")
    assert mine.name == str(tmp_path / "sentiment.toml")
    assert read_space("sentiment").name == "sentiment.toml"


def test_a_tuning_without_its_library_is_refused_with_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr("deepmine_auto.space_file.building.find_spec", lambda _: None)
    (tmp_path / "lora.toml").write_text('[plugins]\nbackbone = ["pretrained"]\ntuning = ["lora"]\n')
    with pytest.raises(MissingExtra, match=r"The tuning 'lora' needs peft\. pip install .deepmine-auto\[pretrained\]"):
        space_of(str(tmp_path / "lora.toml"))


TASKS = {"sentiment": "sentiment", "diagnostics": "needle", "pairs": "reversal"}


@pytest.mark.parametrize("name", sorted({*bundled()} - {"pretrained"}))  # which wants a model: tests/pretrained
def test_every_bundled_space_can_be_built_drawn_and_begun_with_its_recipes(name):
    space = space_of(name, TASKS.get(name, "text_classification"))
    assert space.recipes or name in TASKS
    for recipe in space.recipes:
        for param in space.params:
            if param.name in recipe:
                assert recipe[param.name] in param.range
    assert read_space(name).budget.check()
    assert not set(space.fixed) & {each.name for each in space.params}


def test_a_task_without_a_space_of_its_own_gets_the_default():
    tasks = [the_host().get("task", each) for each in ("sentiment", "text_classification", "needle", "reversal")]
    assert [*map(space_for, tasks)] == ["sentiment", "default", "diagnostics", "pairs"]
    assert "default" in bundled()


def test_a_backbone_that_cannot_learn_the_task_is_refused(file):
    with pytest.raises(BadInput, match=r"'lstm' takes apart source and target, and rows of 'sentiment' are one text"):
        space_of(file('[plugins]\nbackbone = ["lstm"]\n'), "sentiment")
    with pytest.raises(BadInput, match=r"'encoder' would see the answers of 'characters'.*\. Choose among decoder"):
        space_of(file('[plugins]\nbackbone = ["encoder"]\n'), "characters")


def test_where_no_backbone_is_named_those_that_look_as_the_task_allows_are_taken(file):
    kinds = {task: space_of(file("[plugins]\n"), task).params for task in ("sentiment", "characters", "reversal")}
    options = {task: next(each.range for each in params if each.name == "model/kind") for task, params in kinds.items()}
    assert {task: each.options for task, each in options.items()} == {
        "sentiment": ("encoder",),
        "characters": ("decoder",),
        "reversal": ("decoder",),
    }


@pytest.mark.parametrize(
    ("named", "longest", "searched"),
    [("", 256, None), ('"data/max_len" = 512', 512, None), ('"data/max_len" = [64, 512]', 512, (64, 512)),
     ('"data/max_len" = { low = 16, high = 700 }', 700, (16, 700)), ('"data/max_len" = 3', 256, None),
     ('"data/max_len" = { low = 512 }', 32_768, (512, 32_768))],
)  # fmt: skip
def test_how_long_texts_may_be_is_searched_only_where_a_file_says_so(file, named, longest, searched):
    read, task = read_space(file(BASE + f"[ranges]\n{named}\n")), the_host().get("task", "sentiment")
    assert reading_longest(read, task).max_len == longest
    if named.endswith("= 3"):
        with pytest.raises(BadInput, match=r"'data/max_len' is 3\. It must be a whole number from 8 to 32768"):
            build_space(read, the_host(), task, admit_all)
        return
    space = build_space(read, the_host(), task, admit_all)
    found = next((each.range for each in space.params if each.name == "data/max_len"), None)
    assert (found and (getattr(found, "options", None) or (found.low, found.high))) == searched
    assert space.fixed.get("data/max_len") == (512 if named.endswith("= 512") else None)


def test_some_layers_may_be_of_another_kind(file):
    names = [each.name for each in space_of(file('[plugins]\nhybrid = ["multi_head"]\n'), "sentiment").params]
    assert [each for each in names if each.startswith("placement")] == [
        "placement/kind",
        "placement/hybrid/ratio",
        "placement/hybrid/kind",
    ]


def test_one_variant_among_layers_of_its_own_is_no_choice(file):
    mixed = space_of(file('[plugins]\nattention = ["linear", "multi_head"]\nhybrid = ["multi_head"]\n'))
    assert {each.name: each.when for each in mixed.params if each.name.startswith("placement")} == {
        "placement/kind": {"attention/kind": ("linear",)},
        "placement/hybrid/ratio": {"attention/kind": ("linear",), "placement/kind": ("hybrid",)},
        "placement/hybrid/kind": {"attention/kind": ("linear",), "placement/kind": ("hybrid",)},
    }
    alone = space_of(file('[plugins]\nattention = ["multi_head"]\nhybrid = ["multi_head"]\n'))
    assert not [each for each in alone.params if each.name.startswith("placement")]


@pytest.mark.parametrize("where", ["ranges", "recipe", "both"])
def test_two_techniques_that_both_say_what_is_judged_are_refused(file, where):
    ema, soup = '"technique/ema/use" = true\n', '"technique/checkpoint_soup/use" = true\n'
    ranges = {"ranges": ema + soup, "recipe": "", "both": ema}[where]
    recipe = {"ranges": "", "recipe": f"[[recipes]]\n{ema}{soup}", "both": f"[[recipes]]\n{soup}"}[where]
    text = f'[plugins]\ntechnique = ["ema", "checkpoint_soup"]\n[ranges]\n{ranges}{recipe}'
    with pytest.raises(
        BadInput, match=r"mine\.toml: ema and checkpoint_soup would both put other weights .*Use one of"
    ):
        space_of(file(text))


def test_what_a_recipe_does_not_name_is_as_usual_and_not_used(file):
    text = '[plugins]\nattention = ["linear", "rotary"]\nhybrid = ["multi_head"]\noptimizer = ["adamw", "lion"]\n'
    (found,) = space_of(file(f'{text}[ranges]\n"training/clip" = [2.0, 3.0]\n[[recipes]]\n"model/depth" = 3\n')).recipes
    assert found["placement/kind"] == "same"
    assert found["attention/rotary/use"] is False
    assert (found["model/dim"], found["model/depth"]) == (128, 3)
    assert "training/clip" not in found, "the default is not in its range"
    assert "optimizer/kind" not in found, "which of them is left to the sampler"
    assert found["schedule/kind"] == "cosine"
    assert found["schedule/warmup"] == 0.06


def test_a_recipe_that_names_something_of_a_plugin_uses_it(file):
    (found,) = space_of(
        file('[plugins]\ntechnique = ["word_dropout"]\n[[recipes]]\n"technique/word_dropout/share" = 0.2\n')
    ).recipes
    assert (found["technique/word_dropout/use"], found["technique/word_dropout/share"]) == (True, 0.2)


def test_a_recipe_cannot_set_what_no_range_names(file):
    recipe = '[[recipes]]\n"data/max_len" = 64\n'
    with pytest.raises(
        BadInput, match=r"a recipe sets 'data/max_len', which is searched only where \[ranges\] names it"
    ):
        space_of(file(BASE + recipe))
    (found,) = space_of(file(BASE + f'[ranges]\n"data/max_len" = [32, 64]\n{recipe}')).recipes
    assert found["data/max_len"] == 64


def test_a_recipe_leaves_out_kinds_that_were_not_chosen(file):
    recipe = '[[recipes]]\n"attention/kind" = "linear"\n"model/depth" = 3\n"attention/sliding_window/window" = 64\n'
    (found,) = space_of(file(BASE + recipe)).recipes
    assert (found["model/depth"], found["model/kind"], found["optimizer/kind"]) == (3, "encoder", "adamw")
    assert not [name for name in found if name.startswith("attention/")]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[plugins", r"mine\.toml is no TOML: .*\. Correct that place"),
        ("[plugin]", r"mine\.toml: 'plugin' is no section\. Did you mean 'plugins'\?"),
        ("plugins = 3", r"mine\.toml: 'plugins' is no table\. Write \[plugins\] on a line of its own"),
        ("[plugins]\natention = []", r"\[plugins\]: 'atention' is no kind of plugin\. Did you mean 'attention'\?"),
        ('[plugins]\nattention = "linear"', r"mine\.toml: 'attention' is 'linear'\. It must be a list of names"),
        ("[plugins]\nattention = [3]", r"'attention' is \[3\]\. It must be a list of names"),
        ('[plugins]\nsampler = ["tpe"]', r"mine\.toml: 'sampler' is \['tpe'\]\. It must be a name"),
        ("[budget]\ntrails = 3", r"\[budget\]: 'trails' is no limit\. Did you mean 'trials'\?"),
        ('[budget]\ntrials = "3"', r"mine\.toml: 'trials' is '3'\. It must be a whole number"),
        ("[budget]\ntrials = true", r"'trials' is True\. It must be a whole number"),
        ('[budget]\ntime = "soon"', r"'soon' is no duration\. Write 90s, 5m or 1h30m"),
        ("recipes = 3", r"'recipes' is no list of tables\. Write \[\[recipes\]\] above each"),
        (
            '[plugins]\nattention = ["slidng_window"]',
            r"'slidng_window' is no attention\. Did you mean 'sliding_window'\?",
        ),
        ('[ranges]\n"model/dpeth" = 2', r"mine\.toml: 'model/dpeth' is no param\. Did you mean 'model/depth'\?"),
        ("[ranges.model]\ndpeth = 2", r"mine\.toml: 'model/dpeth' is no param\. Did you mean 'model/depth'\?"),
        ('[ranges]\n"model/depth" = 99', r"mine\.toml: 'model/depth' is 99\. It must be a whole number from 1 to 6"),
        ('[ranges]\n"model/depth" = { low = 4, high = 2 }', r"the range of 'model/depth' is empty: 4 to 2"),
        ('[[recipes]]\n"model/dpeth" = 2', r"mine\.toml: 'model/dpeth' is no param\. Did you mean 'model/depth'\?"),
        (
            '[[recipes]]\n"model/depth" = 99',
            r"a recipe sets 'model/depth' to 99\. It must be a whole number from 1 to 6",
        ),
    ],
)
def test_an_error_names_the_file_the_key_and_what_would_be_right(file, text, told):
    with pytest.raises(BadInput, match=told):
        space_of(file(text))


def test_a_param_of_a_plugin_that_is_only_not_chosen_here_is_no_error(file):
    assert space_of(file(BASE + '[ranges]\n"attention/entmax/alpha" = 1.5\n[[recipes]]\n"optimizer/lion/lr" = 1e-4\n'))


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"There is no search space file .*none\.toml\. Check the path"):
        read_space(str(tmp_path / "none.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match=r"binary\.toml cannot be read: .* A search space is a TOML file in UTF-8"):
        read_space(str(tmp_path / "binary.toml"))
    with pytest.raises(BadInput, match=r"'tniy' is no search space\. Did you mean 'tiny'\? Or give a TOML file"):
        read_space("tniy")


# -- narrowing ---------------------------------------------------------------------------------------------------------

PARAMS = (
    Param("model/depth", Int(1, 6), {}),
    Param("optimizer/adamw/lr", Float(1e-4, 1e-2, log=True), {}),
    Param("model/dim", Choice(32, 64, 128), {}),
)


def test_a_table_narrows_a_list_chooses_and_a_value_fixes():
    wishes = {"model/depth": {"low": 2}, "optimizer/adamw/lr": 0.001, "model/dim": [32, 64]}
    kept, fixed = narrowed(PARAMS, wishes, "x.toml")
    assert kept == (Param("model/depth", Int(2, 6), {}), Param("model/dim", Choice(32, 64), {}))
    assert fixed == {"optimizer/adamw/lr": 0.001}


def test_a_narrowed_range_keeps_its_log_and_takes_whole_numbers_for_numbers():
    kept, fixed = narrowed([Param("x", Float(0.5, 8.0, log=True), {})], {"x": {"high": 2}}, "x.toml")
    assert kept[0].range == Float(0.5, 2.0, log=True)
    _, fixed = narrowed([Param("x", Float(0.5, 8.0), {})], {"x": 2}, "x.toml")
    assert fixed == {"x": 2.0}
    assert type(fixed["x"]) is float


@pytest.mark.parametrize(
    ("wishes", "told"),
    [
        ({"model/depth": 9}, r"x\.toml: 'model/depth' is 9\. It must be a whole number from 1 to 6\."),
        ({"model/depth": 2.5}, r"'model/depth' is 2\.5\. It must be a whole number from 1 to 6"),
        ({"model/depth": "two"}, r"'model/depth' is 'two'\. It must be a whole number"),
        ({"model/depth": True}, r"'model/depth' is True\. It must be a whole number"),
        (
            {"model/depth": {"low": 5, "high": 2}},
            r"x\.toml: the range of 'model/depth' is empty: 5 to 2\. Give a whole",
        ),
        ({"model/depth": {"low": 0}}, r"'model/depth' is 0\. It must be a whole number from 1 to 6"),
        ({"model/depth": {"low": 2, "hihg": 3}}, r"'model/depth' has the unknown key 'hihg'\. Use low and high"),
        ({"model/depth": []}, r"the range of 'model/depth' is empty\. Give some of: a whole number from 1 to 6"),
        ({"model/depth": [1, 9]}, r"'model/depth' is 9\. It must be a whole number from 1 to 6"),
        ({"model/dim": {"low": 32}}, r"'model/dim' takes a list\. Give some of: one of 32, 64, 128"),
        ({"model/dim": 33}, r"'model/dim' is 33\. It must be one of 32, 64, 128"),
        ({"optimizer/adamw/lr": 1}, r"'optimizer/adamw/lr' is 1\.0\. It must be a number from 0\.0001 to 0\.01"),
    ],
)
def test_what_a_range_does_not_hold_is_refused_with_the_range(wishes, told):
    with pytest.raises(BadInput, match=told):
        narrowed(PARAMS, wishes, "x.toml")


def test_what_a_user_may_give_beside_the_rows_has_one_name_in_every_room():
    assert get_args(Given) == Extra._fields
    assert {*get_args(Given)} == {*LEARNERS} == {*SPOKEN_GIVEN}


PRETRAINED = """
[plugins]
attention = ["multi_head"]
backbone = [{backbones}]
tuning = ["full", "top_layers"]
[ranges]
"model/pretrained/origin" = "somewhere"
[[recipes]]
"tuning/kind" = "lora"
"optimizer/adamw/lr" = 1e-3
[[recipes]]
"tuning/kind" = "full"
"""


def test_a_recipe_of_a_tuning_that_is_not_searched_is_not_tried(file):
    """Its learning rate would be far too large for the others."""
    space = space_of(file(PRETRAINED.format(backbones='"pretrained"')))
    assert [each["tuning/kind"] for each in space.recipes] == ["full"]


@pytest.mark.parametrize(("backbones", "searched"), [('"pretrained"', False), ('"pretrained", "encoder"', True)])
def test_how_words_are_cut_is_not_searched_where_pretrained_models_do_that(file, backbones, searched):
    space = space_of(file(PRETRAINED.format(backbones=backbones)))
    assert ("data/tokens" in {each.name for each in space.params}) == searched
    assert ("data/tokens" in space.fixed) != searched
