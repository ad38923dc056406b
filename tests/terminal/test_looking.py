"""What is seen of a study with several objectives and limits: a Pareto front of what may win."""

import json
from dataclasses import replace

import pytest
from fakes import Desk, ending, quick

from deepmine_auto.cli import run
from deepmine_auto.errors import BadInput
from deepmine_auto.host import the_host
from deepmine_auto.messages import Reported
from deepmine_auto.objectives import Objective
from deepmine_auto.study.budget import Budget
from deepmine_auto.terminal.looking import see
from deepmine_plugins.pruners.none import KeepAll

VALUES = {0: (0.9, 9.0), 1: (0.8, 4.0), 2: (0.7, 2.0), 3: (0.6, 3.0), 4: (0.5, 1.0), 5: (0.95, 1.0)}
"""What each trial is worth: f, and latency_ms. Of those within the limit, 1, 2 and 4 are beaten by no other."""

FRONT = [1, 2, 4]


def valued(assignment, host):
    """A training whose last report is worth what VALUES says; trial 5 diverges, and rerun values are the trial's."""
    number = assignment.number if assignment.kind == "trial" else 1
    f, latency = VALUES[number]
    steps = list(ending("diverged" if number == 5 else "budget", after=2)(assignment, host))
    for at, message in enumerate(steps):
        if isinstance(message, Reported):
            value = f - 0.3 * (1 - at)
            message = replace(message, value=value, metrics={"f": value, "latency_ms": latency})
        yield message


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A study of f and latency_ms, with a limit on the latter, in the folder where commands are typed."""
    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path, pruner=KeepAll())
    objectives = [Objective("f", "maximize"), Objective("latency_ms", "minimize")]
    more = {"objectives": ["f", "latency_ms"], "limits": [["latency_ms", 1, 5.0]]}
    (tmp_path / "two").mkdir()
    spec = {**desk.begin("other").spec, **more}
    desk.work(desk.store.create_study("two", objectives, str(tmp_path / "two"), spec), Budget(trials=6), valued)
    return desk


def shown(capsys, *args):
    assert run([*args, "--storage", "studies.db"], the_host()) == 0
    return capsys.readouterr().out


def test_the_best_of_several_objectives_is_the_pareto_front_of_what_keeps_the_limits(desk):
    assert [each.number for each in see(desk.place, "two").best(1)] == FRONT


def test_a_trial_has_the_value_of_every_objective_from_its_best_report(desk):
    trial = see(desk.place, "two").trials[1]
    assert trial.value == 0.8
    assert trial.values == {"f": 0.8, "latency_ms": 4.0}


def test_what_is_over_a_limit_or_diverged_is_not_feasible(desk):
    assert [each.feasible for each in see(desk.place, "two").trials] == [False, True, True, True, True, False]


def test_the_front_is_printed_with_a_column_for_each_objective(desk, capsys):
    lines = shown(capsys, "best", "two").splitlines()
    assert lines[0].split()[:3] == ["trial", "f", "latency_ms"]
    assert [line.split()[:3] for line in lines[1:4]] == [
        ["1", "0.8000", "4.0000"], ["2", "0.7000", "2.0000"], ["4", "0.5000", "1.0000"]]  # fmt: skip
    assert "front   3 trials, beaten by no other in f and latency_ms" in lines
    assert "limits  latency_ms<=5: 1 trial over them" in lines


def test_objectives_and_limits_are_in_the_json(desk, capsys):
    found = json.loads(shown(capsys, "best", "two", "--json"))
    assert [each["name"] for each in found["objectives"]] == ["f", "latency_ms"]
    assert found["limits"] == ["latency_ms<=5"]
    assert [each["number"] for each in found["best"]] == FRONT
    assert found["best"][0]["values"] == {"f": 0.8, "latency_ms": 4.0}


def test_a_trial_over_a_limit_says_so(desk, capsys):
    lines = shown(capsys, "trials", "two").splitlines()
    assert "over limit" in lines[1]
    assert "over limit" not in lines[6], "it diverged"


def test_a_running_trial_over_a_limit_is_not_among_the_best(desk):
    study = desk.store.create_study("one", [Objective("f", "maximize")], str(desk.folder / "two"),
                                    {**desk.store.study("other").spec, "limits": [["f", 1, 0.1]]})  # fmt: skip
    desk.free()
    agenda = desk.agenda(study)
    assignment = agenda.next()
    for message in list(quick(assignment, None))[:3]:
        assert agenda.heard(assignment.key, message)
    seen = see(desk.place, "one")
    assert seen.trials[0].state == "running"
    assert seen.trials[0].value > 0.1
    assert seen.best(5) == []


def test_with_one_objective_the_best_are_the_highest_values_of_what_may_win(tmp_path):
    desk = Desk(tmp_path, pruner=KeepAll())

    def mixed(assignment, host):
        yield from (ending("memory") if assignment.number == 1 else quick)(assignment, host)

    desk.work(desk.begin(), Budget(trials=4), mixed)
    seen = see(desk.place, "study")
    assert not seen.several
    assert sorted(each.number for each in seen.best(9)) == [0, 2, 3], "what failed cannot win"
    assert len(seen.best(2)) == 2


def test_what_is_to_be_typed_names_the_database_that_was_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path)
    with pytest.raises(BadInput, match=r"Begin one: `deepmine-auto search --storage .*studies\.db`\.$"):
        see(desk.place)
    desk.begin("mine")
    with pytest.raises(BadInput, match=r"'mine'\? `deepmine-auto studies --storage .*studies\.db` lists them all\."):
        see(desk.place, "mien")
