"""`studies verify`, `stop`, `export` and `replay`, as they are typed."""

import json
import os
import sqlite3
import subprocess
import sys

import pytest
from fakes import Desk, quick
from typed import command

from deepmine_auto.cli import run
from deepmine_auto.host import the_host
from deepmine_auto.storage import tables
from deepmine_auto.study.budget import Budget
from deepmine_auto.study.history import History
from deepmine_plugins.pruners.none import KeepAll


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A finished study without checkpoints on the disk, in the folder where commands are typed."""
    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path, pruner=KeepAll())
    desk.work(written(desk, "mine"), Budget(trials=4))
    return desk


def written(desk, name):
    study = desk.begin(name)
    more = {"budget": {"trials": 4}, "sampler": "tpe", "pruner": "none"}
    desk.store.reopen(study.id, {**study.spec, **more})
    return desk.store.study(name)


def left(desk):
    """A study whose driver is gone: one trial has ended, two run."""
    study = written(desk, "left")
    agenda = desk.agenda(study, Budget(trials=9), slots=3)
    first, second, _ = agenda.next(), agenda.next(), agenda.next()
    for message in quick(first, None):
        agenda.heard(first.key, message)
    agenda.heard(second.key, next(quick(second, None)))
    desk.free()
    return study


def typed(capsys, *args, code=0):
    assert run(["studies", *args], the_host()) == code
    return capsys.readouterr()


HERE = ("--storage", "studies.db")


# -- verify ------------------------------------------------------------------------------------------------------------


def test_verify_prints_a_line_a_check_and_says_what_does_not_hold(desk, capsys):
    told = typed(capsys, "verify", "mine", *HERE, code=1)
    lines = told.out.splitlines()
    assert "curves      4 of 4 hold" in lines
    missing = [each for each in lines if each.startswith("    ")]
    assert all("manifest.json cannot be read" in each for each in missing), "the fakes write no checkpoints"
    assert f"checkpoints 0 of {len(missing)} hold" in lines
    assert told.err.startswith(f"{len(missing)} of ")
    assert told.err.endswith("things of the study 'mine' do not hold. They stand in the lines above.\n")


def test_verify_is_one_json_object_where_asked_for(desk, capsys):
    found = json.loads(typed(capsys, "verify", "mine", "--json", *HERE, code=1).out)
    assert (found["study"], found["holds"]) == ("mine", False)
    assert {each["name"] for each in found["checks"] if each["wrong"]} == {"checkpoints"}


def test_verify_of_a_study_without_faults_ends_with_0(desk, capsys):
    written(desk, "empty")
    assert "sessions" in typed(capsys, "verify", "empty", *HERE).out


def test_verify_writes_nothing(desk, capsys):
    left(desk)
    with sqlite3.connect("studies.db") as connection:
        before = list(connection.iterdump())
        for name in ("mine", "left"):
            typed(capsys, "verify", name, *HERE, code=1)
        assert list(connection.iterdump()) == before


def test_verify_tells_of_what_runs_while_nobody_drives_it(desk, capsys):
    left(desk)
    assert "    trial 1 is RUNNING, and no driver is alive" in typed(capsys, "verify", "left", *HERE, code=1).out
    with desk.place.hold("left"):
        assert "no driver is alive" not in typed(capsys, "verify", "left", *HERE, code=1).out


def test_verify_imports_neither_torch_nor_ray(desk):
    code = (
        "import sys; from deepmine_auto.cli import run; from deepmine_auto.host import the_host;"
        "run(['studies', 'verify', 'mine', '--storage', 'studies.db'], the_host());"
        "print(sorted({'torch', 'ray', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.splitlines()[-1] == "[]"


# -- stop --------------------------------------------------------------------------------------------------------------


def test_stop_ends_what_runs_with_the_reason(desk, capsys):
    study = left(desk)
    assert typed(capsys, "stop", "left", "--reason", "the machine is gone", *HERE).out == "stopped: trial 1, trial 2\n"
    rows = desk.trials(study)
    assert [each.state.name for each in rows] == ["COMPLETE", "FAIL", "FAIL"]
    assert [each.user_attrs.get("reason") for each in rows] == [None, "the machine is gone", "the machine is gone"]
    assert {each.user_attrs["cause"] for each in rows[1:]} == {"cancelled"}
    assert History(desk.store, study).unfinished() == []
    assert desk.store.rows(tables.events, study.id)[-1]["text"] == "trial 1, trial 2: the machine is gone"


def test_stop_takes_the_study_with_a_new_epoch(desk, capsys):
    study = left(desk)
    typed(capsys, "stop", "left", *HERE)
    assert [row["epoch"] for row in desk.store.sessions(study.id)] == [1, 2]


def test_stop_ends_reruns_too(desk, capsys):
    study = written(desk, "finals")
    agenda = desk.agenda(study, Budget(trials=1), slots=2)
    first = agenda.next()
    for message in quick(first, None):
        agenda.heard(first.key, message)
    agenda.next(), agenda.next()
    desk.free()
    assert typed(capsys, "stop", "finals", *HERE).out == "stopped: rerun 0, rerun 1\n"
    states = [(row["state"], row["reason"]) for row in desk.store.rows(tables.reruns, study.id)]
    assert states == [("FAIL", "stopped by `deepmine-auto studies stop`")] * 2


def test_stop_carries_out_a_verdict_that_was_written(desk, capsys):
    study = left(desk)
    seq = desk.store.rows(tables.reports, study.id)[-1]["seq"]
    verdict = {"seq": seq, "number": 1, "keep": False, "value": 1.0, "cutoff": 2.0, "rung": 111, "cause": "pruned"}
    desk.store.add(tables.verdicts, study.id, verdict)
    assert typed(capsys, "stop", "left", *HERE).out == "stopped: trial 2\n"
    row = desk.trials(study)[1]
    assert (row.state.name, row.user_attrs["cause"]) == ("PRUNED", "pruned")


def test_what_was_stopped_is_sound_and_goes_on_with_new_trials(desk, capsys):
    study = left(desk)
    typed(capsys, "stop", "left", *HERE)
    found = json.loads(typed(capsys, "verify", "left", "--json", *HERE, code=1).out)
    assert {each["name"] for each in found["checks"] if each["wrong"]} == {"checkpoints"}
    assert desk.agenda(study, Budget(trials=9)).next().number == 3


def test_stop_of_a_study_that_rests_changes_nothing(desk, capsys):
    assert typed(capsys, "stop", "mine", *HERE).out == "nothing was running\n"
    assert json.loads(typed(capsys, "stop", "mine", "--json", *HERE).out) == {"study": "mine", "stopped": []}


def test_stop_refuses_while_a_driver_is_alive_and_says_who(desk, capsys):
    study = left(desk)
    with desk.place.hold("left"):
        told = typed(capsys, "stop", "left", *HERE, code=5).err
    assert f"The study 'left' is held by process {os.getpid()}" in told
    assert [each.state.name for each in desk.trials(study)] == ["COMPLETE", "RUNNING", "RUNNING"]
    assert len(desk.store.sessions(study.id)) == 1


# -- export and replay -------------------------------------------------------------------------------------------------


def test_an_exported_study_is_replayed_and_everything_comes_out_again(desk, capsys):
    told = typed(capsys, "export", "mine", "--output", "mine.json", *HERE).out
    assert told.splitlines()[1] == f"replay it: deepmine-auto studies replay {desk.folder / 'mine.json'}"
    lines = typed(capsys, "replay", "mine.json").out.splitlines()
    assert "proposals   4 of 4 hold" in lines
    assert "verdicts    0 of 0 hold" in lines
    assert not [each for each in lines if each.startswith(("checkpoints", "running", " "))]


def test_a_replay_that_differs_ends_with_1_and_a_sentence(desk, capsys):
    study = desk.store.study("mine")
    desk.store.reopen(study.id, {**study.spec, "pruner": "asha"})
    typed(capsys, "export", "mine", "--output", "mine.json", *HERE)
    told = typed(capsys, "replay", "mine.json", code=1)
    assert "things come out otherwise than they were recorded." in told.err
    assert len(told.err.splitlines()) == 1
    assert "has no verdict" in told.out


def test_other_pruners_and_samplers_are_shown_beside_the_recorded_ones(desk, capsys):
    typed(capsys, "export", "mine", "--output", "mine.json", *HERE)
    args = ("replay", "mine.json", "--pruner", "asha", "--pruner", "median", "--sampler", "random")
    lines = [line.split("  ")[0] for line in typed(capsys, *args).out.splitlines()]
    assert lines == ["pruner", "none", "asha", "median", "sampler", "tpe, as recorded", "by chance", "tpe", "random"]
    found = json.loads(typed(capsys, *args, "--json").out)
    assert [each["pruner"] for each in found["pruners"]] == ["none", "asha", "median"]
    assert [each["sampler"] for each in found["samplers"]][2:] == ["tpe", "random"]
    assert found["pruners"][0]["regret"] == 0


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("verify", "mien", *HERE), "Did you mean 'mine'?"),
        (("stop", "mien", *HERE), "Did you mean 'mine'?"),
        (("export", "mien", "--output", "x.json", *HERE), "Did you mean 'mine'?"),
        (("export", "mine", *HERE), "Missing option '--output'"),
        (("replay", "nowhere.json"), "cannot be read as JSON"),
        (("stop", "mine", "--storage", "none.db"), "There is no study database"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(desk, capsys, args, told):
    before = set(desk.folder.iterdir())
    refused = typed(capsys, *args, code=2)
    assert told in refused.err
    assert len(refused.err.splitlines()) == 1
    assert {each for each in desk.folder.iterdir() if not each.name.endswith(".lock")} <= before


def test_a_replay_with_an_unknown_plugin_is_refused_with_the_nearest_name(desk, capsys):
    typed(capsys, "export", "mine", "--output", "mine.json", *HERE)
    assert "Did you mean 'asha'?" in typed(capsys, "replay", "mine.json", "--pruner", "asah", code=2).err


@pytest.mark.slow
def test_a_study_that_was_really_searched_is_sound_and_replayed_exactly(searched):
    folder, found, _ = searched
    assert command("studies", "verify", found["study"], folder=folder).returncode == 0
    assert command("studies", "export", found["study"], "--output", "study.json", folder=folder).returncode == 0
    assert command("studies", "replay", "study.json", folder=folder).returncode == 0


def test_options_before_a_command_mean_what_they_mean_after_it(desk, capsys):
    shown = json.loads(typed(capsys, *HERE, "--json", "list").out)
    assert [each["study"] for each in shown["studies"]] == ["mine"]
    assert "There is no study database" in typed(capsys, "--storage", "other.db", "stop", "mine", code=2).err
