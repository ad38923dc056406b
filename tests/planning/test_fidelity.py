"""Of data that are too many for the time a trial reads a part, and goes its whole way on it."""

from types import SimpleNamespace

import numpy as np
import pytest
from fakes import Desk
from hypothesis import assume, given
from hypothesis import strategies as st
from tiny_texts import assignment, kept

from deepmine_auto.changing import as_much_read
from deepmine_auto.data.kept import SEARCH
from deepmine_auto.data.rows import Rows
from deepmine_auto.data.split import fewer_judged, fewer_tested, split
from deepmine_auto.errors import BadInput
from deepmine_auto.executors import crew
from deepmine_auto.host import the_host
from deepmine_auto.messages import Reported
from deepmine_auto.planning import fidelity, splits
from deepmine_auto.planning.fidelity import FEWEST, MANY, most_judged, most_read, most_tested, reading, told
from deepmine_auto.planning.plan import plan
from deepmine_auto.planning.request import Request
from deepmine_auto.space import FIDELITY, Choice, Int, Param, Space
from deepmine_auto.training.loop import Training
from deepmine_auto.training.recipe import Recipe

EPOCHS = Param("training/epochs", Int(1, 12), {})
SPACE = Space((EPOCHS,), {"model/kind": "encoder"})
HERE = {"executor": "ray", "address": None, "gpus": None, "gpus_per_trial": None, "workers": None}
SPEC = {"budget": {"seconds": 600.0, "gpu_hours": None}, "workers": HERE}


@pytest.fixture
def pace(monkeypatch):
    """What says how long a row takes, in the place of a measurement."""
    told = SimpleNamespace(seconds=0.002)
    monkeypatch.setattr(fidelity, "_pace", lambda *_: told.seconds)
    return told


def texts(count):
    return Rows(["text"] * count, ["label"] * count)


def most(space=SPACE, rows=30_000, judged=0, **changed):
    return most_read(space, {**SPEC, **changed}, the_host(), texts(rows), judged=judged)


# -- how many rows -----------------------------------------------------------------------------------------------------


def test_a_trial_reads_what_a_sixth_of_the_time_is_enough_for(pace):
    assert most() == 50_000
    assert reading(SPACE, 50_000) == Space((EPOCHS,), {"model/kind": "encoder", FIDELITY: 50_000})
    parts = {"train": 90_000, "validation": 1, "test": 9_000}
    assert [*told(50_000, parts, 9_000)] == [
        "A trial reads 50,000 rows at most in all, of 90,000: more would take over a sixth of the time. "
        '"training/rows" in a space changes that.'
    ]
    assert reading(SPACE, 0) == SPACE
    assert [*told(0, parts, 9_000)] == []
    assert [*told(50_000, parts, 9_001)][1:] == [
        "The winner is tested on 9,000 of 9,001 rows that are held out for it."
    ]


def test_what_it_takes_to_judge_it_by_rows_that_were_given_is_no_time_to_learn(pace):
    assert most(judged=5_000) == 50_000 - 3 * 5_000 / 3
    assert most(judged=60_000) == FEWEST


def test_it_is_judged_by_rows_that_take_no_longer_than_what_it_reads():
    assert most_judged(50_000) == 12_500
    assert most_judged(FEWEST) == FEWEST
    assert (most_tested(50_000), most_tested(9)) == (50_000, FEWEST)


def test_gpu_hours_are_time_too_where_trials_hold_gpus(pace, monkeypatch):
    def read(hours, seconds=None, **workers):
        return most(budget={"seconds": seconds, "gpu_hours": hours}, workers={**HERE, **workers})

    monkeypatch.setattr(crew, "gpus_here", lambda: 2)
    assert read(1 / 3) == read(9.0, seconds=600.0) == 50_000
    assert read(1 / 12, gpus_per_trial=0.5, workers=1) == 50_000
    assert read(1.0, gpus=0) == 0


@pytest.mark.parametrize("epochs", [Int(1, 1), Choice(1), None])
def test_it_reads_all_rows_where_there_is_time_for_as_many_epochs_as_it_may_have(pace, epochs):
    fixed = {"training/epochs": 1} if epochs is None else {}
    space = Space(() if epochs is None else (Param("training/epochs", epochs, {}),), fixed)
    assert most(space, rows=50_000) == 0
    assert most(space, rows=50_001) == 50_000


def test_it_reads_some_rows_however_slow_it_is(pace):
    pace.seconds = 60.0
    assert most() == FEWEST


@pytest.mark.parametrize(
    ("space", "rows", "changed"),
    [
        (SPACE, MANY - 1, {}),
        (SPACE, 30_000, {"budget": {"seconds": None, "gpu_hours": None}}),
        (SPACE, 30_000, {"workers": {**HERE, "address": "10.0.0.1:6379"}}),
        (SPACE, 30_000, {"budget": {"seconds": None, "gpu_hours": 1.0}, "workers": {**HERE, "executor": "inline"}}),
        (Space((EPOCHS,), {FIDELITY: 0}), 30_000, {}),
        (Space((EPOCHS, Param(FIDELITY, Choice(1_000, 9_000), {})), {}), 30_000, {}),
    ],
)
def test_nothing_is_measured_where_rows_are_few_or_nothing_says_how_long_it_may_take_or_a_space_says_it(
    monkeypatch, space, rows, changed
):
    monkeypatch.setattr(fidelity, "_pace", lambda *_: pytest.fail("measured"))
    assert most(space, rows, **changed) == 0


def test_where_no_model_can_be_tried_nothing_changes(pace):
    pace.seconds = 0.0
    assert most() == 0


# -- a plan ------------------------------------------------------------------------------------------------------------


def planned(**fields):
    asked = {"task": "text_classification", "data": "moods.csv", "time_budget": "10m", **fields}
    return plan(Request(**asked), the_host())


@pytest.fixture
def many(monkeypatch):
    """Forty rows are many, and no time is enough for them."""
    for name, value in {"MANY": 10, "FEWEST": 5, "TRIALS": 1e9, "MEASURED": 40}.items():
        monkeypatch.setattr(fidelity, name, value)


def test_a_plan_tries_models_of_its_space_and_says_how_many_rows_a_trial_reads_and_is_judged_by(here, many):
    found, whole = planned(), planned(time_budget=None, trials=3)
    assert Space.from_json(found.spec["space"]).fixed[FIDELITY] == 5
    assert any("reads 5 rows at most in all, of 68:" in each for each in found.notes)
    assert found.spec["parts"] == {"train": 68, "validation": 4, "test": 4}
    assert {len(each.validation) for each in found.splits.values()} == {4}
    assert {tuple(each.test) for each in found.splits.values()} == {tuple(found.splits[SEARCH].test)}
    assert found.spec["locked"] == whole.spec["locked"], "the same rows are locked away"
    assert [*here.iterdir()] == [here / "moods.csv"]


@pytest.mark.parametrize("known", ["study", "folder"])
def test_a_name_or_folder_that_is_there_is_refused_before_models_are_tried(here, many, monkeypatch, known):
    monkeypatch.setattr(fidelity, "_pace", lambda *_: pytest.fail("tried"))
    folder = here / "deepmine-auto"
    folder.mkdir()
    if known == "study":
        Desk(folder).begin("mine")
    else:
        (folder / "mine").mkdir()
        (folder / "mine" / "file").touch()
    with pytest.raises(BadInput, match="There is a study 'mine'" if known == "study" else "mine exists already"):
        planned(study="mine")


def test_rows_that_were_given_for_validation_and_test_stay(here, many):
    (here / "judged.csv").write_text(
        "text,label\n" + "".join(f"{at} good tea,up\n{at} bad tea,down\n" for at in range(9))
    )
    for part in ("validation", "test"):
        found = planned(data=["train=moods.csv", f"{part}=judged.csv"])
        assert Space.from_json(found.spec["space"]).fixed[FIDELITY] == 5
        assert found.spec["parts"][part] == 18


def test_the_pace_is_that_of_the_slowest(here, monkeypatch):
    found = planned()
    space, rows = Space.from_json(found.spec["space"]), found.rows
    asked = []
    monkeypatch.setattr(fidelity, "paces", lambda given, *_: asked.append(given) or [2.0, 3.0, 1.0])
    assert fidelity._pace(space, found.spec, the_host(), rows, found.extra) == 3.0
    assert asked[0].fixed[FIDELITY] == len(rows) - 1, "who reads a part remembers nothing of a frozen part"
    let_go = []
    monkeypatch.setattr(fidelity, "let_go", lambda: let_go.append(True))
    monkeypatch.setattr(fidelity, "paces", lambda *_: [])
    assert fidelity._pace(space, found.spec, the_host(), rows, found.extra) == 0.0
    assert let_go, "workers may share the GPU of this process"


@given(st.lists(st.sampled_from("abc"), min_size=12, max_size=60), st.integers(1, 30), st.integers(0, 5))
def test_fewer_rows_are_judged_by_and_tested_on_and_each_stratum_keeps_one(strata, most, seed):
    assume(min(map(strata.count, set(strata))) >= 3)
    before = split(strata, 1)
    after = fewer_judged(before, strata, most, seed)
    assert after.test == before.test
    assert sorted(after.train + after.validation) == sorted(before.train + before.validation)
    assert set(after.validation) <= set(before.validation)
    assert {strata[each] for each in after.validation} == {strata[each] for each in before.validation}
    assert len(after.validation) <= max(most, len(set(strata)))
    tested = fewer_tested(before, strata, most, seed)
    assert tested[:2] == before[:2], "nothing is trained on that a study with more time may be tested on"
    assert set(tested.test) <= set(before.test)
    assert {strata[each] for each in tested.test} == {strata[each] for each in before.test}
    assert len(tested.test) <= max(most, len(set(strata)))


def test_no_more_rows_are_held_out_than_tell_models_apart(here, monkeypatch):
    assert planned().spec["parts"] == {"train": 64, "validation": 8, "test": 8}
    monkeypatch.setattr(splits, "MOST_JUDGED", 4)
    found = planned()
    assert found.spec["parts"] == {"train": 72, "validation": 4, "test": 4}
    assert {len(each.validation) for each in found.splits.values()} == {4}


@given(st.sampled_from([None, "validation", "test"]), st.integers(1, 30), st.integers(40, 200))
def test_no_more_rows_of_a_part_are_held_out_than_asked_for_whatever_parts_are_given(part, most, rows):
    parts = None if part is None else ["train"] * rows + [part] * 300
    strata = ["one"] * (rows + (300 if part else 0))
    found, whole = split(strata, 1, parts, most=most), split(strata, 1, parts)
    for name in {"validation", "test"} - {part}:
        assert len(getattr(found, name)) == min(most, len(getattr(whole, name)))
    assert found == whole or any(len(getattr(whole, each)) > most for each in {"validation", "test"} - {part})


@pytest.mark.parametrize(
    ("after", "fixed"),
    [
        (Space((), {}), {FIDELITY: 9}),
        (Space((), {FIDELITY: 0}), {FIDELITY: 0}),
        (Space((Param(FIDELITY, Int(1, 5), {}),), {}), {}),
    ],
)
def test_who_goes_on_reads_as_much_unless_the_new_space_says_how_much(after, fixed):
    assert as_much_read(after, Space((), {FIDELITY: 9, "model/kind": "encoder"})).fixed == fixed
    assert as_much_read(after, Space((), {})) == after


@pytest.mark.parametrize("fixed", [{}, {FIDELITY: 9}])
def test_what_was_found_with_fewer_rows_holds_for_more(fixed):
    space = Space((EPOCHS,), {"model/kind": "encoder", **fixed})
    for read in ({}, {FIDELITY: 5}):
        assert space.fit({"training/epochs": 3, "model/kind": "encoder", **read}) == {"training/epochs": 3}
    searched = Space((EPOCHS, Param(FIDELITY, Int(1, 8), {})), {})
    assert searched.fit({"training/epochs": 3, FIDELITY: 5}) == {"training/epochs": 3, FIDELITY: 5}
    assert searched.fit({"training/epochs": 3, FIDELITY: 9}) is None


# -- a trial -----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 20), st.sampled_from([8, 32]), st.integers(0, 3_000), st.integers(1, 200))
def test_a_trial_reads_as_many_rows_as_it_may_to_a_batch_and_no_more_than_its_epochs_have(epochs, batch, most, rows):
    recipe = Recipe(epochs=epochs, batch=batch, rows=most)
    whole = Recipe(epochs=epochs, batch=batch)
    assert recipe.reads(rows) == min([epochs * rows, *([most] if most else [])])
    assert recipe.steps(rows) <= whole.steps(rows)
    assert recipe.steps(rows) * batch >= recipe.reads(rows)
    if recipe.steps(rows) < whole.steps(rows):
        assert (recipe.steps(rows) - 1) * batch < most


def test_a_trial_goes_its_whole_way_on_a_part_of_the_rows_of_which_it_reads_none_twice(tmp_path):
    params = {"training/rows": 40, "training/batch": 8, "training/epochs": 12}
    training = Training(assignment(kept(tmp_path / "study"), number=0, params=params), the_host())
    read, draw = list[int](), training.draw
    training.draw = lambda: (drawn := draw(), read.extend(drawn[0].rows_B.tolist()))[0]
    *messages, end = training.messages()
    assert end.cause == "budget"
    assert end.facts["training_rows"] == 40
    assert training.progress.step == training.steps == 5
    assert len(read) == len(np.unique(read)) == 40
    assert [each for each in messages if isinstance(each, Reported)][-1].share == 1000


def test_a_trial_says_how_many_rows_it_has_read_where_it_was_no_epoch(tmp_path):
    params = {"training/epochs": 2, "training/batch": 24}
    training = Training(assignment(kept(tmp_path / "study"), number=0, params=params), the_host())
    read = {}
    for step in (0, 1, 2, 3, 6):  # an epoch of 64 has three
        training.progress.step = step
        read[step] = training.facts().get("training_rows")
    assert read == {0: 0, 1: 21, 2: 43, 3: None, 6: None}
