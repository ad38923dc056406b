"""Everything that can be refused is refused before anything is written."""

from datetime import date

import optuna
import pytest
from fakes import Desk

from deepmine_auto import Source, Tagging
from deepmine_auto.data.kept import SEARCH
from deepmine_auto.data.rows import Extra
from deepmine_auto.data.split import split
from deepmine_auto.errors import BadInput
from deepmine_auto.host import the_host
from deepmine_auto.planning import paying, splits
from deepmine_auto.planning.plan import plan
from deepmine_auto.planning.request import Request
from deepmine_auto.pretrained import choosing
from deepmine_auto.space import Space
from deepmine_auto.storage.place import place_of
from deepmine_auto.storage.sqlite import SqliteFile
from deepmine_auto.study.budget import Budget
from deepmine_auto.study.cheap_first import work_of
from deepmine_auto.study.seeding import seed_of


def planned(**fields):
    asked = {"task": "text_classification", "data": "moods.csv", "trials": 3, **fields}
    return plan(Request(**asked), the_host())


def test_a_plan_writes_nothing(here):
    before = sorted(here.rglob("*"))
    planned()
    assert sorted(here.rglob("*")) == before


def test_a_plan_says_all_that_a_study_must_know(here):
    found = planned(seed=4, executor="inline")
    assert found.name == f"text_classification-moods-{date.today():%m%d}"
    assert found.storage == SqliteFile(here / "deepmine-auto" / "studies.db")
    assert found.folder == here / "deepmine-auto" / found.name
    assert found.budget == Budget(3, None), "a number of trials takes the place of the space's time"
    spec = found.spec
    assert (spec["objective"], spec["direction"], spec["seed"]) == ("macro_f1", "maximize", 4)
    assert spec["workers"]["executor"] == "inline"
    assert sum(spec["parts"].values()) == len(found.rows) == 80
    assert Space.from_json(spec["space"]).params
    assert len(spec["fingerprint"]) == 64


def test_what_is_locked_depends_on_the_seed_alone(here):
    locked = [planned(seed=seed).spec["locked"] for seed in (4, 4, 5)]
    assert locked[0] == locked[1] != locked[2]


def test_the_same_rows_in_another_order_are_the_same_content_and_other_rows_are_locked(here):
    rows = [f"word number {at},{at % 2}\n" for at in range(40)]
    (here / "mine.csv").write_text("text,label\n" + "".join(rows))
    (here / "turned.csv").write_text("text,label\n" + "".join(reversed(rows)))
    one, other = (planned(data=each).spec for each in ("mine.csv", "turned.csv"))
    assert one["content"] == other["content"]
    assert one["fingerprint"] != other["fingerprint"]
    assert one["locked"] != other["locked"]


def test_after_the_recipes_the_first_draws_are_those_of_the_seed_and_come_by_their_work(here):
    spec = planned(trials=20).spec
    space = Space.from_json(spec["space"])
    works = [work_of(spec, space.complete(each), the_host()) for each in spec["first"]]
    assert len(works) == 10 - len(space.recipes)
    assert works == sorted(works)
    assert planned(trials=20).spec["first"] == spec["first"] != planned(trials=20, seed=5).spec["first"]
    assert planned(trials=20, sampler="random").spec["first"] == []


def test_texts_are_read_as_far_as_the_space_says(here):
    (here / "mine.toml").write_text('[plugins]\nattention = ["multi_head"]\n[ranges]\n"data/max_len" = 8\n')
    (here / "long.csv").write_text("text,label\n" + "".join(f"{'word ' * 9}{at},{at % 2}\n" for at in range(40)))
    found = planned(space="mine.toml", data="long.csv")
    assert "40 of 40 texts have more than 8 words and are cut there." in found.notes
    assert Space.from_json(found.spec["space"]).fixed["data/max_len"] == 8


def test_all_splits_share_the_locked_test(here):
    splits = planned().splits
    assert set(splits) == {SEARCH, "rerun-0", "rerun-1", "rerun-2"}
    assert len({tuple(each.test) for each in splits.values()}) == 1
    assert len({tuple(each.validation) for each in splits.values()}) == 4
    for each in splits.values():
        assert sorted(each.train + each.validation + each.test) == list(range(80))


def test_validation_rows_that_were_given_are_learned_from_in_no_rerun(here):
    for part, begin in (("train", 0), ("validation", 40), ("test", 80)):
        lines = [f"{'good' if row % 2 else 'bad'} words {row},{row % 2}" for row in range(begin, begin + 40)]
        (here / f"{part}.csv").write_text("\n".join(["text,label", *lines]))
    found = planned(data=[f"{each}={each}.csv" for each in ("train", "validation", "test")])
    assert set(found.splits) == {SEARCH, "rerun-0", "rerun-1", "rerun-2"}
    assert {tuple(each.validation) for each in found.splits.values()} == {tuple(range(40, 80))}
    assert (found.spec["validation_given"], planned().spec["validation_given"]) == (True, False)


def test_no_rerun_has_an_answer_that_its_training_rows_lack(here):
    """Where each token has its own answer, a rare one may stand in a single row."""

    class Tags(Tagging):
        name = "tags"
        source = "a test"

    lines = [f"word{row} end,x {'abc'[row] if row < 3 else 'y'}" for row in range(40)]
    (here / "rows.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    task = Tags()
    made = task.read(Source({"all": here / "rows.csv"}))
    seeds = [each for each in range(20) if splits._knows(task, made, split(task.strata(made), seed_of(each, "split")))]
    assert seeds, "the others are refused with the plan"
    for seed in seeds:
        assert all(splits._knows(task, made, each) for each in splits.splits_of(task, seed, made).values())


def test_seeds_decide_the_splits(here):
    assert planned(seed=1).splits == planned(seed=1).splits != planned(seed=2).splits


def test_chosen_attentions_take_the_place_of_the_spaces(here):
    space = Space.from_json(planned(attention=["linear", "multi_head"]).spec["space"])
    (kind,) = [each.range for each in space.params if each.name == "attention/kind"]
    assert kind.options == ("linear", "multi_head")


def test_one_attention_may_be_given_as_it_is(here):
    assert planned(attention="multi_head").spec["space"] == planned(attention=["multi_head"]).spec["space"]


def test_a_time_budget_may_be_text_or_seconds(here):
    assert (
        planned(trials=None, time_budget="2m").budget
        == planned(trials=None, time_budget=120).budget
        == Budget(None, 120)
    )
    assert planned(time_budget="2m").budget == Budget(3, 120)


def test_a_study_is_named_after_the_data_of_its_task():
    task = {"objective": (), "trials": 3, "data": ()}
    assert planned(**{**task, "task": "sentiment"}).name.startswith("sentiment-tweets-")
    assert planned(**{**task, "task": "needle"}).name == f"needle-{date.today():%m%d}"


def test_a_free_name_is_found_beside_studies_and_folders(here):
    first = planned().name
    desk_folder = here / "deepmine-auto"
    desk_folder.mkdir()
    Desk(desk_folder).begin(first)
    second = planned().name
    assert second == f"{first}-2"
    (desk_folder / second).mkdir()
    assert planned().name == f"{first}-3"
    for number in range(3, 7):
        (desk_folder / f"{first}-{number}").mkdir()
    assert planned().name == f"{first}-7", "folders may outlive their studies"
    assert place_of(str(desk_folder / "studies.db")).names() == {first}


def test_a_study_that_is_known_is_offered_to_be_resumed_where_it_is_ours_alone(here):
    desk_folder = here / "deepmine-auto"
    desk_folder.mkdir()
    optuna.create_study(storage=f"sqlite:///{desk_folder}/studies.db", study_name="theirs")
    with pytest.raises(BadInput, match=r"There is a study 'theirs' in .* already\. Choose another name: --study\.$"):
        planned(study="theirs")
    Desk(desk_folder).begin("mine")
    with pytest.raises(BadInput, match=r"'theirs' in .*studies\.db already\. Choose another name: --study\.$"):
        planned(study="theirs")
    with pytest.raises(BadInput, match=r"'mine' in .* already\. Go on with it: deepmine-auto resume mine; or choose"):
        planned(study="mine")
    planned(study="new")


def test_a_database_that_is_still_empty_is_no_obstacle(here):
    (here / "new.db").touch()
    assert planned(storage="new.db").storage == SqliteFile(here / "new.db")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"task": "sentimet"}, r"'sentimet' is no task\. Did you mean 'sentiment'\?"),
        ({"executor": "rya"}, r"'rya' is no executor\. Did you mean 'ray'\?"),
        ({"sampler": "tep"}, r"'tep' is no sampler\. Did you mean 'tpe'\?"),
        ({"pruner": "ahsa"}, r"'ahsa' is no pruner\. Did you mean 'asha'\?"),
        ({"attention": ["linera"]}, r"'linera' is no attention\. Did you mean 'linear'\?"),
        ({"backbone": "encodr"}, r"'encodr' is no backbone\. Did you mean 'encoder'\? .* given as encodr@main"),
        ({"attention": ["rotary"]}, r"No core or mixer is among the attentions rotary\. Add one"),
        ({"objective": "acuracy"}, r"'acuracy' is no objective of the task .*Did you mean 'accuracy'\?"),
        ({"space": "tniy"}, r"'tniy' is no search space\. Did you mean 'tiny'\?"),
        ({"trials": 0}, r"A study of 0 trials learns nothing"),
        ({"trials": None, "time_budget": "1s"}, r"A time budget of 1 s is too short"),
        ({"time_budget": "soon"}, r"'soon' is no duration"),
        ({"gpus": -1}, r"--gpus is -1\. Give a larger number"),
        ({"workers": 0}, r"--workers is 0\. Give a larger number"),
        ({"executor": "inline", "workers": 4}, r"inline executor has one worker .*, and takes no --workers\. Use"),
        ({"executor": "inline", "gpus_per_trial": 0.5}, r"takes no --gpus-per-trial\. Use --executor ray"),
        ({"executor": "inline", "pin_workers": True}, r"takes no --pin-workers\. Use --executor ray"),
        ({"executor": "inline", "address": "10.0.0.1:6379"}, r"takes no --address\. Use --executor ray"),
        (
            {"data": (), "label_column": "stars"},
            r"--label-column names a column of your rows, and there are none\. Give",
        ),
        ({"data": (), "text_column": "said"}, r"--text-column names a column of your rows"),
        ({"gpus_per_trial": 0.0}, r"--gpus-per-trial is 0\.0\. Give a larger number"),
        ({"gpus_per_trial": float("nan")}, r"--gpus-per-trial is nan\. Give a larger number"),
        ({"study": "a/b"}, r"'a/b' is no study name\. Use up to 64 letters"),
        ({"study": "../x"}, r"is no study name"),
        ({"study": "x" * 65}, r"is no study name"),
        ({"storage": "moods.csv"}, r"moods\.csv is no SQLite database"),
        ({"storage": "."}, r"is a folder\. Name a file in it"),
        ({"data": "none.csv"}, r"none\.csv"),
        ({"data": ()}, r"brings no data\. Name your own"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_sentence_and_nothing_is_left_behind(here, fields, told):
    before = sorted(here.rglob("*"))
    with pytest.raises(BadInput, match=told):
        planned(**fields)
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("name", ["gpt2", "bert-base-uncased", "encodr@main", "me/encodr", "encodr"])
def test_a_name_that_no_backbone_is_like_is_that_of_a_model(here, monkeypatch, name):
    def asked(name):
        raise BadInput(f"{name} was looked for")

    monkeypatch.setattr(choosing, "pinned", asked)
    (here / "encodr").mkdir()
    with pytest.raises(BadInput, match=f"{name} was looked for"):
        planned(backbone=name)


def test_a_space_without_a_budget_needs_one(here):
    (here / "mine.toml").write_text('[plugins]\nattention = ["multi_head"]\n')
    with pytest.raises(BadInput, match=r"mine\.toml sets no budget\. Give --trials or --time-budget"):
        planned(space="mine.toml", trials=None)


def test_variants_that_the_data_rule_out_are_left_out_and_named(here, monkeypatch):
    from dataclasses import replace

    linear = the_host().get("attention", "linear")
    monkeypatch.setattr(linear, "caps", replace(linear.caps, max_len=3))
    found = planned(attention=["linear", "multi_head"])
    assert any(note.startswith("left out: linear takes at most 3 tokens, and up to 256 ") for note in found.notes)
    (kind,) = [each.range for each in Space.from_json(found.spec["space"]).params if each.name == "attention/kind"]
    assert kind.options == ("multi_head",)


def test_where_trials_run_elsewhere_this_machine_rules_out_nothing(here, monkeypatch):
    monkeypatch.setattr(paying, "reasons", lambda variants, *_: ["linear is slow"] * ("linear" in variants))
    asked = {"attention": ["linear", "multi_head"]}
    assert "left out: linear is slow" in planned(**asked).notes
    found = planned(**asked, address="10.0.0.1:6379")
    assert "left out: linear is slow" not in found.notes
    (kind,) = [each.range for each in Space.from_json(found.spec["space"]).params if each.name == "attention/kind"]
    assert kind.options == ("linear", "multi_head")


# -- rows without labels -----------------------------------------------------------------------------------------------

USE = "technique/pseudo_labels/use"
"""The param that says whether a trial learns from them."""


def loose(here, *texts):
    (here / "more.txt").write_text("\n".join(texts) + "\n")
    return planned(unlabelled="more.txt")


def test_rows_without_labels_are_kept_counted_and_searched(here):
    found = loose(here, "a good day", "a rude road", planned().rows.inputs[0])
    assert found.extra.unlabelled == ["a good day", "a rude road"]
    assert found.spec["described"]["unlabelled"] == 2
    assert "2 rows without labels are learned from." in found.notes
    space = Space.from_json(found.spec["space"])
    assert USE in {each.name for each in space.params}
    without, with_them = space.recipes[:2]
    assert (without[USE], with_them[USE]) == (False, True)
    others = {name: each for name, each in with_them.items() if not name.startswith("technique/pseudo_labels/")}
    assert {**others, USE: False} == without, "the first recipe is tried both ways"
    assert all(each[USE] is False for each in space.recipes[2:])


def test_without_them_nothing_that_needs_them_is_searched(here):
    found = planned()
    assert found.extra == Extra()
    assert "unlabelled" not in found.spec["described"]
    assert USE not in {each.name for each in Space.from_json(found.spec["space"]).params}


def test_a_technique_that_needs_them_is_refused_without(here):
    text = '[plugins]\ntechnique = ["pseudo_labels"]\n'
    (here / "own.toml").write_text(text)
    with pytest.raises(BadInput, match=r"'pseudo_labels' learns from rows without labels\. Give --unlabelled FILE"):
        planned(space="own.toml")
    (here / "more.txt").write_text("a good day\n")
    found = planned(space="own.toml", unlabelled="more.txt")
    assert USE in {each.name for each in Space.from_json(found.spec["space"]).params}


PARAPHRASES = "technique/paraphrases/use"


def reworded(here, texts):
    lines = [f'"{text}","other words {at}"' for at, text in enumerate(texts)]
    (here / "reworded.csv").write_text("\n".join(["text,paraphrase", *lines]) + "\n")
    return "reworded.csv"


def test_paraphrases_are_kept_counted_and_searched_but_for_those_of_the_test(here):
    plain = planned()
    found = planned(paraphrases=reworded(here, plain.rows.inputs))
    test = {plain.rows.inputs[each] for each in plain.splits[SEARCH].test}
    assert {text for text, _ in found.extra.paraphrases} == {*plain.rows.inputs} - test
    count = 80 - len(test)
    assert found.spec["described"]["paraphrases"] == count
    assert f"{count} paraphrases of {count} texts are learned from." in found.notes
    space = Space.from_json(found.spec["space"])
    assert [each[PARAPHRASES] for each in space.recipes[:2]] == [False, True]


def test_what_learns_from_both_is_searched_where_both_are_given(here):
    (here / "more.txt").write_text("a good day\n")
    found = planned(unlabelled="more.txt", paraphrases=reworded(here, planned().rows.inputs))
    space = Space.from_json(found.spec["space"])
    assert {USE, PARAPHRASES} <= {each.name for each in space.params}
    assert [(each[USE], each[PARAPHRASES]) for each in space.recipes[:3]] == [
        (False, False),
        (False, True),
        (True, False),
    ]


def test_the_column_of_the_rows_may_be_called_otherwise_beside_them(here):
    texts = planned().rows.inputs
    (here / "said.csv").write_text((here / "moods.csv").read_text().replace("text,label", "said,label", 1))
    (here / "more.csv").write_text("id,text\na,a good day\n")
    found = planned(data="said.csv", text_column="said", unlabelled="more.csv", paraphrases=reworded(here, texts))
    assert found.extra.unlabelled == ["a good day"]
    assert {text for text, _ in found.extra.paraphrases} < {*texts}
    (here / "more.csv").write_text("text,said\na rude road,a good day\n")
    assert planned(data="said.csv", text_column="said", unlabelled="more.csv").extra.unlabelled == ["a good day"]


def test_a_column_that_is_named_for_texts_without_labels_alone_must_be_there(here):
    (here / "more.csv").write_text("text\na good day\n")
    with pytest.raises(BadInput, match=r"'txet' is no column of more\.csv\. Did you mean 'text'"):
        planned(task="sentiment", data=(), unlabelled="more.csv", text_column="txet")


def test_a_technique_that_needs_paraphrases_is_refused_without(here):
    (here / "own.toml").write_text('[plugins]\ntechnique = ["paraphrases"]\n')
    with pytest.raises(BadInput, match=r"'paraphrases' learns from other words for texts\. Give --paraphrases FILE"):
        planned(space="own.toml")


@pytest.mark.parametrize("given", ["unlabelled", "paraphrases"])
def test_an_empty_name_of_a_file_is_one_that_is_not_there(here, given):
    with pytest.raises(BadInput, match="has an extension that is not read"):
        planned(**{given: ""})


def test_a_technique_that_moves_tokens_is_refused_where_each_has_an_answer_and_nothing_is_written(here):
    (here / "own.toml").write_text('[plugins]\ntechnique = ["token_swap"]\n')
    before = sorted(here.rglob("*"))
    with pytest.raises(BadInput, match=r"'token_swap' is for rows of one answer, .*\. Leave token_swap out") as refused:
        planned(task="copy_memory", data=(), space="own.toml")
    assert refused.value.exit_code == 2
    assert sorted(here.rglob("*")) == before


def test_a_task_of_other_rows_refuses_paraphrases(here):
    with pytest.raises(BadInput, match=r"'copy_memory' learns nothing from paraphrases\. Leave --paraphrases"):
        planned(task="copy_memory", data=(), paraphrases="reworded.csv")


def test_a_task_of_other_rows_refuses_them(here):
    (here / "more.txt").write_text("a good day\n")
    with pytest.raises(BadInput, match=r"'copy_memory' learns nothing from rows without labels\. Leave --unlabelled"):
        planned(task="copy_memory", data=(), unlabelled="more.txt")
