"""`best`, `trials`, `studies`: what they show of studies that are unfinished, running, or finished."""

import json
import re
import shutil
import sqlite3
from pathlib import Path

import pytest
from fakes import Desk, ending
from typed import command

import deepmine_auto
from deepmine_auto.cli import run
from deepmine_auto.host import the_host
from deepmine_auto.study.budget import Budget


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A database with one study of five ended trials and one that runs, in the folder where commands are typed."""
    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path)
    study = desk.begin("mine")
    desk.work(study, Budget(trials=5))
    desk.agenda(study, Budget(trials=9)).next()
    return desk


def shown(capsys, *args):
    assert run([*args, "--storage", "studies.db"], the_host()) == 0
    return capsys.readouterr().out


def test_the_trials_of_a_study_that_runs_are_listed(desk, capsys):
    lines = shown(capsys, "trials", "mine").splitlines()
    assert lines[0].split() == ["trial", "value", "state", "seconds", "params", "model"]
    assert len(lines) == 6


def test_trials_are_json_with_all_their_params(desk, capsys):
    found = json.loads(shown(capsys, "trials", "--json"))
    assert found["study"] == "mine"
    assert found["trials"][0]["params"]["training/epochs"] == 3
    assert {each["state"] for each in found["trials"]} <= {"complete", "pruned", "running", "failed"}


def test_a_trial_is_shown_at_its_best_value(desk, capsys):
    store = desk.store
    study = store.study("mine")
    found = json.loads(shown(capsys, "trials", "mine", "--json"))["trials"]
    for each, row in zip(found, store.trials(study.id), strict=True):
        if row.intermediate_values:
            assert each["value"] == max(row.intermediate_values.values())


def test_a_trial_that_failed_shows_its_reason(desk, capsys):
    study = desk.begin("failing")
    reason = "Traceback\n  File x\nValueError: no\x1b[31m luck"
    desk.work(study, Budget(trials=2), ending("memory", reason=reason))
    out = shown(capsys, "trials", "failing")
    assert "ValueError: no luck" in out
    assert "\x1b" not in out


def test_the_best_of_an_unfinished_study_says_how_to_go_on(desk, capsys):
    out = shown(capsys, "best")
    assert "not yet: the finals have not been held" in out
    assert f"deepmine-auto resume mine --storage {desk.folder / 'studies.db'}" in out


@pytest.mark.parametrize("args", [["export", "mine", "--output", "there"], ["ensemble", "mine"]])
def test_a_command_that_a_refusal_names_says_where_the_study_is(args, desk, capsys):
    assert run([*args, "--storage", "studies.db"], the_host()) == 2
    assert f"deepmine-auto resume mine --storage {desk.folder / 'studies.db'}" in capsys.readouterr().err


ABOUT_A_STUDY = re.compile(r"deepmine-auto (?:resume|trials|best|export|ensemble|dashboard) \{(.*?)\}(.*)")


def test_every_command_about_a_study_that_is_told_says_where_it_is():
    package = Path(deepmine_auto.__file__).parent
    told = [found for file in package.rglob("*.py") for found in ABOUT_A_STUDY.findall(file.read_text())]
    assert len(told) > 10
    assert not [each for each in told if "typed" not in each[0] and "flag_of" not in each[1]]


def test_the_best_trials_come_best_first(desk, capsys):
    values = [each["value"] for each in json.loads(shown(capsys, "best", "--json"))["best"]]
    assert values == sorted(values, reverse=True)


def test_the_newest_study_is_shown_unless_one_is_named(desk, capsys):
    desk.begin("newer")
    assert json.loads(shown(capsys, "best", "--json"))["study"] == "newer"
    assert json.loads(shown(capsys, "best", "mine", "--json"))["study"] == "mine"
    assert "no trials yet" in shown(capsys, "trials")


def test_studies_are_listed_oldest_first(desk, capsys):
    desk.begin("newer")
    found = json.loads(shown(capsys, "studies", "list", "--json"))["studies"]
    assert [each["study"] for each in found] == ["mine", "newer"]
    assert shown(capsys, "studies") == shown(capsys, "studies", "list")
    assert "unfinished" in shown(capsys, "studies")


@pytest.mark.parametrize("args", [["trials", "mien"], ["best", "mien"], ["resume", "mien"]])
def test_an_unknown_study_is_refused_with_the_nearest_name(args, desk, capsys):
    assert run([*args, "--storage", "studies.db"], the_host()) == 2
    told = capsys.readouterr().err
    assert "'mien' is no study in" in told
    assert "Did you mean 'mine'?" in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize("args", [["studies"], ["trials"], ["best"], ["resume", "mine"]])
def test_a_database_that_is_not_there_is_refused_and_not_made(args, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(args, the_host()) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_reading_works_where_the_writer_left_neither_log_nor_index(desk, capsys):
    before = shown(capsys, "trials", "mine")
    desk.store.engine.dispose()
    with sqlite3.connect("studies.db") as connection:
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    shutil.copy("studies.db", "alone.db")
    assert run(["trials", "mine", "--storage", "alone.db"], the_host()) == 0
    assert capsys.readouterr().out == before


def test_reading_works_while_the_writer_is_in_the_middle_of_a_write(desk, capsys):
    before = shown(capsys, "trials", "mine")
    with desk.store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE deepmine_studies SET folder = 'elsewhere'")
        assert shown(capsys, "trials", "mine") == before


@pytest.mark.slow
def test_the_best_of_a_finished_study_is_what_the_search_printed(searched):
    folder, found, _ = searched
    assert json.loads(command("best", "--json", folder=folder).stdout) == found
    text = command("best", folder=folder).stdout
    assert f"winner  trial {found['result']['winner']}: " in text
    assert ("\nfinals  " in text) == bool(found["result"]["rerun_values"])
    assert found["result"]["sentence"] in text
    assert "deepmine-auto trials small\n" in text
    assert "finished" in command("studies", folder=folder).stdout
