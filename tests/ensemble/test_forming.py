"""`ensemble` averages trials of a finished study, and never shows that without the winner beside it."""

import json
import os
import sqlite3
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from forming_kit import TRIALS, openings, run
from typed import command

import deepmine_auto
from deepmine_auto.commands.ensemble import ensemble
from deepmine_auto.commands.evaluate import evaluate
from deepmine_auto.commands.predict import predict
from deepmine_auto.data import kept
from deepmine_auto.ensemble import forming, selecting
from deepmine_auto.ensemble.greedy import Picked
from deepmine_auto.errors import BadInput, StudyHeld
from deepmine_auto.storage import tables
from deepmine_auto.storage.file_hold import FileHold
from deepmine_auto.storage.place import place_of

TEXTS = ["so good a day", "a sad and grim day"]


def study_folder(study):
    return study.bundle.parent


def probabilities(answers):
    return np.array([list(each["probabilities"].values()) for each in answers])


# -- what is made ----------------------------------------------------------------------------------------------------


def test_it_answers_as_the_mean_of_its_members_does(formed):
    loaded = deepmine_auto.load(formed.folder)
    each = [probabilities(member.predict(TEXTS)) for member in loaded.members]
    expected = sum(share * found for share, found in zip(loaded.weights, each, strict=True))
    np.testing.assert_allclose(probabilities(loaded.predict(TEXTS)), expected, atol=1e-9)
    assert loaded.predict("so good") == loaded.predict(["so good"])
    assert loaded.predict([]) == []
    assert len(loaded.members) == len({each.manifest["trial"] for each in loaded.members}) >= 2


def test_a_member_is_what_export_makes_of_that_trial(formed, tmp_path):
    from deepmine_auto.exporting import export_again

    trial = formed.told["validation"]["best"]
    again = export_again("small", formed.study.storage, trial, tmp_path / "again")
    member = deepmine_auto.load(formed.folder / f"trial-{trial}")
    np.testing.assert_array_equal(member.outputs(TEXTS), deepmine_auto.load(again).outputs(TEXTS))
    assert member.manifest["evidence"] is None


def test_it_is_better_on_the_validation_rows_than_the_best_trial_alone_and_says_by_how_much(formed):
    rows = kept.rows_of(study_folder(formed.study), kept.SEARCH, "validation")
    loaded, told = deepmine_auto.load(formed.folder), formed.told["validation"]
    targets = loaded.prepared.targets(rows)

    def loss(of):
        return loaded.task.scores(of.outputs(rows.inputs), targets)["log_loss"]

    assert told["candidates"] == TRIALS
    assert loss(loaded) == pytest.approx(told["value"], abs=1e-6)
    best = deepmine_auto.load(formed.folder / f"trial-{told['best']}")
    assert loss(best) == pytest.approx(told["alone"], abs=1e-6)
    assert told["value"] < told["alone"]


def test_its_card_says_who_its_members_are_what_it_scores_beside_the_winner_and_what_it_costs(formed):
    card, told = (formed.folder / "README.md").read_text(), formed.told
    times = told["cost"]["params_million"]["times"]
    for part in (
        "# small: an ensemble",
        f"{told['sentence'][1:]}.",
        *(f"| trial {trial} | {share:.0%} |" for trial, share in told["shares"].items()),
        f"| log_loss | {told['evidence']['scores']['log_loss']:.4f} | {told['evidence']['baseline']['log_loss']:.4f} |",
        f"by trial {told['validation']['best']} alone",
        f"{times:.1f} times that of the winner",
        f"The test was opened {told['test_opened']} times",
        "not calibrated",
    ):
        assert part in card
    assert "transformers" not in card, "it cannot load an ensemble"


def test_the_winner_stands_beside_it_with_its_own_weights_on_the_same_rows(formed):
    rows = kept.test_rows(study_folder(formed.study))
    evidence = formed.told["evidence"]
    for model, told in ((formed.folder, "scores"), (formed.study.bundle, "baseline")):
        loaded = deepmine_auto.load(model)
        found = loaded.task.scores(loaded.outputs(rows.inputs), loaded.prepared.targets(rows))
        assert found == pytest.approx(evidence[told], abs=1e-5)
    assert evidence["lead"] == pytest.approx(evidence["baseline"]["log_loss"] - evidence["scores"]["log_loss"])
    low, high = evidence["lead_interval"]
    assert low <= evidence["lead"] <= high
    assert formed.told["winner"] == formed.study.trial


def test_what_it_costs_is_told_as_a_multiple_of_the_winner(formed):
    loaded, size = deepmine_auto.load(formed.folder), formed.told["cost"]["params_million"]
    whole = sum(each.numel() for member in loaded.members for each in member.model.parameters())
    assert size["ensemble"] == pytest.approx(whole / 1e6, abs=1e-3)
    assert size["times"] == pytest.approx(size["ensemble"] / size["winner"], abs=0.01)
    assert formed.told["cost"]["ms_per_text"]["ensemble"] > 0


@pytest.mark.usefixtures("unverified")
def test_each_opening_of_the_test_is_an_event_and_counted(formed, tmp_path):
    before = openings(formed.study)
    assert before[0].startswith("the locked test was opened for the weights of trial")
    assert before[1].startswith("the locked test was opened for an ensemble of trials ")
    _, told = run(formed.study, tmp_path / "second", "--members", "3")
    after = openings(formed.study)
    assert len(after) == len(before) + 1
    assert told["test_opened"] == len(after)


@pytest.mark.usefixtures("unverified")
def test_the_text_has_both_scores_their_difference_the_cost_and_the_openings(formed, tmp_path):
    where = ["--storage", str(formed.study.storage), "--output", str(tmp_path / "told")]
    told = CliRunner().invoke(ensemble, ["small", *where], catch_exceptions=False).stdout
    lines = {line.split()[0]: line for line in told.splitlines()}
    assert [*lines] == ["ensemble", "validation", "test", "winner", "lead", "cost", "opened", "folder"]
    assert f"by trial {formed.study.trial} on the same rows" in lines["winner"]
    assert " ahead of the winner" in lines["lead"]
    assert "times the parameters" in lines["cost"]
    assert f"opened {len(openings(formed.study))} times" in lines["opened"]


def test_predict_and_evaluate_take_it_like_a_bundle(formed, tmp_path):
    answered = CliRunner().invoke(predict, [str(formed.folder), "--json", *TEXTS], catch_exceptions=False).stdout
    assert [json.loads(line) for line in answered.splitlines()] == deepmine_auto.load(formed.folder).predict(TEXTS)
    (tmp_path / "rows.csv").write_text("text,label\nso good,positive\nsad,negative\ngreat,positive\n")
    args = [str(formed.folder), "--data", str(tmp_path / "rows.csv"), "--json"]
    judged = json.loads(CliRunner().invoke(evaluate, args, catch_exceptions=False).stdout)
    assert judged["rows"] == 3
    assert judged["sentence"].startswith("log loss ")


# -- what is refused -------------------------------------------------------------------------------------------------


@contextmanager
def away(*folders):
    """Checkpoints that are not there for a while."""
    moved = [(each, each.with_name(f"away-{each.name}")) for each in folders]
    for here, there in moved:
        here.rename(there)
    try:
        yield
    finally:
        for here, there in moved:
            there.rename(here)


def refuses(study, tmp_path, told, *args, error=BadInput, storage=None):
    """Assert that nothing is made, and that the test stays locked."""
    before = len(openings(study))
    where = ["--storage", str(storage or study.storage), "--output", str(tmp_path / "none" / "ensemble")]
    with pytest.raises(error, match=told):
        CliRunner().invoke(ensemble, [*(args or ("small",)), *where], catch_exceptions=False)
    assert len(openings(study)) == before
    assert not (tmp_path / "none" / "ensemble").exists()
    assert not (tmp_path / "none").exists() or [*(tmp_path / "none").iterdir()] == []


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["smal"], r"'smal' is no study in .*\. Did you mean 'small'\?"),
        (["small", "--members", "1"], r"--members is 1, and an ensemble has two or more\. Give a larger number\."),
        (["small", "--members", "-3"], r"--members is -3, and an ensemble has two or more"),
    ],
)
def test_what_cannot_be_made_is_refused(averaged_study, tmp_path, args, told):
    refuses(averaged_study, tmp_path, told, *args)


def test_a_database_that_does_not_exist_is_refused_and_not_made(averaged_study, tmp_path):
    refuses(averaged_study, tmp_path, "There is no study database", storage=tmp_path / "no.db")
    assert not (tmp_path / "no.db").exists()


def test_a_study_that_has_not_ended_is_refused(averaged_study, tmp_path):
    with sqlite3.connect(str(averaged_study.storage)) as database, sqlite3.connect(tmp_path / "copy.db") as copy:
        database.backup(copy)
        copy.execute(f"UPDATE {tables.studies.name} SET result = 'null'")
    told = r"'small' has no winner yet\. Finish it: deepmine-auto resume small --storage .*\.db"
    refuses(averaged_study, tmp_path, told, storage=tmp_path / "copy.db")


def test_a_study_whose_weights_are_gone_but_for_one_trial_is_refused(averaged_study, tmp_path):
    checkpoints = study_folder(averaged_study) / "checkpoints"
    with away(checkpoints / "trial-00000", checkpoints / "trial-00002"):
        refuses(averaged_study, tmp_path, r"needs two trials, and the study 'small' has whole weights of trial 1 alone")
    with away(*checkpoints.glob("trial-*")):
        refuses(averaged_study, tmp_path, r"needs two trials, and the study 'small' has whole weights of no trial")


def test_a_damaged_checkpoint_is_no_candidate(averaged_study, tmp_path):
    (tensors,) = (study_folder(averaged_study) / "checkpoints" / "trial-00001").glob("*/*/tensors.safetensors")
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with away(study_folder(averaged_study) / "checkpoints" / "trial-00002"):
            refuses(averaged_study, tmp_path, r"has whole weights of trial 0 alone")
    finally:
        tensors.write_bytes(whole)


def test_a_winner_whose_weights_are_lost_is_refused_before_the_test_is_opened(averaged_study, tmp_path):
    with away(*(study_folder(averaged_study) / "checkpoints").glob("rerun-*")):
        refuses(averaged_study, tmp_path, r"The weights of trial \d are lost")


def test_where_one_trial_alone_is_as_good_the_test_stays_locked(averaged_study, tmp_path, monkeypatch):
    monkeypatch.setattr(selecting, "greedy", lambda *_: None)
    told = r"than trial \d alone\. Export that one: deepmine-auto export small --storage .*\.db --trial \d"
    refuses(averaged_study, tmp_path, told, error=selecting.NoBetter)


def test_an_ensemble_that_is_no_better_than_one_trial_is_refused(averaged_study, tmp_path, monkeypatch):
    monkeypatch.setattr(selecting, "greedy", lambda models, worth, _: Picked((0, 1), max(map(worth, [[0], [1], [2]]))))
    refuses(averaged_study, tmp_path, "no ensemble is better than trial", error=selecting.NoBetter)


def test_a_winner_of_other_classes_is_refused_before_the_test_is_opened(averaged_study, tmp_path, monkeypatch):
    pool_of = forming.pool_of

    def turned(*given):
        pool = pool_of(*given)
        return replace(pool, targets=1 - pool.targets)

    monkeypatch.setattr(forming, "pool_of", turned)
    monkeypatch.setattr(forming, "select", lambda *_: None)
    refuses(averaged_study, tmp_path, "trained again on rows with other classes")


def test_a_folder_that_exists_is_refused_before_the_test_is_opened(averaged_study, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    before = len(openings(averaged_study))
    with pytest.raises(BadInput, match=r"exists already\. Give another --output"):
        run(averaged_study, tmp_path / "mine")
    assert len(openings(averaged_study)) == before


def test_a_study_that_another_process_holds_is_refused(averaged_study, tmp_path):
    with place_of(str(averaged_study.storage)).hold("small"):
        refuses(averaged_study, tmp_path, "small", error=StudyHeld)


# -- what ends in the middle -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unverified")
def test_the_study_is_held_again_before_the_test_is_opened(averaged_study, tmp_path, monkeypatch):
    """Candidates and bundles may take hours, in which a connection is lost."""
    seen = []

    def judged(*_):
        seen.append("judged")
        raise KeyboardInterrupt

    monkeypatch.setattr(FileHold, "regain", lambda _: seen.append("held"))
    monkeypatch.setattr(forming, "_judged", judged)
    with pytest.raises(KeyboardInterrupt):
        forming.form("small", averaged_study.storage, output=tmp_path / "ensemble")
    assert seen == ["held", "judged"]


@pytest.mark.usefixtures("unverified")
@pytest.mark.parametrize("at", ["_judged", "write"])
def test_what_ends_in_the_middle_leaves_nothing(averaged_study, tmp_path, monkeypatch, at):
    def fails(*_):
        raise KeyboardInterrupt("ctrl-c")

    monkeypatch.setattr(forming, at, fails)
    with pytest.raises(KeyboardInterrupt):
        forming.form("small", averaged_study.storage, output=tmp_path / "ensemble")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.slow
def test_one_that_is_killed_leaves_nothing_under_its_name_and_the_next_clears_away(averaged_study, tmp_path):
    before = len(openings(averaged_study))
    args = ["ensemble", "small", "--storage", str(averaged_study.storage), "--output", str(tmp_path / "ensemble")]
    killed = {**os.environ, "DEEPMINE_AUTO_FAILPOINT": "mid_export:kill:2"}
    assert command(*args, folder=tmp_path, env=killed).returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".ensemble.")
    assert [each.name for each in left.glob("trial-*")]
    assert len(openings(averaged_study)) == before
    done = command(*args, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["ensemble"]
    assert deepmine_auto.load(tmp_path / "ensemble").predict(TEXTS)
    assert len(openings(averaged_study)) == before + 1


@pytest.mark.usefixtures("unverified")
def test_by_itself_it_stands_in_the_studys_folder(averaged_study):
    told = forming.form("small", averaged_study.storage)
    assert Path(told["folder"]) == study_folder(averaged_study) / "ensemble"
    with pytest.raises(BadInput, match="exists already"):
        forming.form("small", averaged_study.storage)
