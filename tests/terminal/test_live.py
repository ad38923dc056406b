import io
from dataclasses import replace
from types import SimpleNamespace

import pytest
from optuna.trial import TrialState
from rich.console import Console

from deepmine_auto.objectives import Objective
from deepmine_auto.study.budget import Budget
from deepmine_auto.study.checkpoints import Standing
from deepmine_auto.terminal.live import LiveView
from deepmine_auto.terminal.progress import Beside, best_trial, progress_of
from deepmine_auto.terminal.watching import EventLines, told

PARAMS = {"attention/kind": "linear", "model/depth": 2, "model/dim": 64, "optimizer/kind": "adamw"}


class Agenda(SimpleNamespace):
    """What the views read of an agenda, with values by hand."""

    refit_seconds = None

    def best_values(self):
        curves = {
            number: [row["value"] for row in each.reports]
            for (kind, number), each in self.ledger.history.standing.items()
        }
        return {number: max(values) for number, values in curves.items() if values}

    def finalists(self):
        return sorted(self.best_values())[:3]

    def expected(self, trial):
        return 10.0

    def seconds_left(self):
        return None


def agenda(ended=2, trials=10, reruns=()):
    states = dict.fromkeys(range(ended), TrialState.COMPLETE) | {ended: TrialState.RUNNING}
    rows = {
        n: SimpleNamespace(number=n, state=s, params=PARAMS, user_attrs={"seconds": 4.0}, constraints={})
        for n, s in states.items()
    }
    for each in rows.values():
        each.state = states[each.number]
    standing = {
        ("trial", n): Standing(
            [{"saved": None}],
            [{"step": at, "value": 0.5 + 0.01 * n + 0.1 * at, "share": 500 + 500 * at} for at in range(2)],
        )
        for n in rows
    }
    spec = {
        "task": "sentiment",
        "parts": {"train": 3312, "validation": 414, "test": 414},
        "objective": "macro_f1",
        "direction": "maximize",
        "sampler": "tpe",
        "pruner": "asha",
    }
    ledger = SimpleNamespace(
        study=SimpleNamespace(
            name="evil\x1b[2Jname",
            typed="evil\x1b[2Jname --storage away.db",
            spec=spec,
            objectives=[Objective("macro_f1", "maximize")],
            limits=[],
            varied="split",
        ),
        trials=rows,
        history=SimpleNamespace(standing=standing, of=lambda *key: standing[key]),
        reruns={row["number"]: row for row in reruns},
        direction="maximize",
        params=lambda number: rows[number].params,
        spent=61.0,
    )
    running = {("trial", ended): None} if not reruns else {}
    budget = Budget(trials, None)
    return Agenda(ledger=ledger, budget=budget, slots=2, closing=lambda: 12.0, running=running, stopped=False)


def view(width, **made):
    console = Console(file=io.StringIO(), width=width, height=24, force_terminal=True, color_system=None)
    opened = []
    live = LiveView(lambda: opened.append(True), console)
    live.opened(agenda(**made), ("60 duplicates were removed.",), lambda: 0.55)
    assert opened
    return live


def drawn(live):
    with live.console.capture() as capture:
        live.console.print(live.drawn())
    return capture.get().rstrip("\n").split("\n")


@pytest.mark.parametrize("width", [40, 80, 100])
def test_no_line_is_wider_than_the_terminal(width):
    live = view(width)
    live.happened("failed", "trial 7 failed: " + "x" * 200, 7)
    assert all(len(line) <= width for line in drawn(live))


def test_the_view_shows_the_study_the_best_trial_and_what_runs():
    text = "\n".join(drawn(view(100)))
    assert "3,312 / 414 / 414 rows  10 trials, 2 workers" in text
    assert "best 0.6200  trial 2  +7.0 pp over tf-idf" in text
    assert "linear, depth 2, dim 64, adamw" in text
    assert "searching  2/10 trials  1m01s" in text
    assert "2 complete  1 running" in text
    assert "rank 1" in text


def test_control_characters_of_a_name_never_reach_the_terminal():
    live = view(80)
    live.happened("failed", "bad\x1b[31m text\r\n", 1)
    text = "\n".join(drawn(live))
    assert "\x1b" not in text
    assert "\r" not in text
    assert "bad text" in text


def test_the_time_left_is_told_after_five_trials():
    assert "left" not in "\n".join(drawn(view(100, ended=4)))
    # 5 trials of 4 s and 9 reruns of 10 s over 2 workers, and 12 s for the end
    assert "about 1m07s left" in "\n".join(drawn(view(100, ended=5)))


def test_the_finals_and_the_end_are_told():
    rerun = {"number": 0, "trial": 1, "repeat": 0, "state": "COMPLETE", "value": 0.7}
    live = view(100, reruns=[rerun])
    assert "finals 1 of 9" in "\n".join(drawn(live))
    live.concluding()
    assert "exporting" in "\n".join(drawn(live))


def test_a_picture_that_cannot_be_taken_leaves_the_terminal_as_it_was():
    live = view(80)

    def broken():
        raise ValueError("the baseline failed")

    live.beside = replace(live.beside, value=broken)
    with pytest.raises(ValueError, match="the baseline failed"), live:
        live.happened("ended", "budget", 1)
    assert not live.live.is_started


def test_a_picture_is_not_taken_again_at_once():
    live = view(80)
    first = live.picture
    live.tick()
    assert live.picture is first
    live.due = 0.0
    live.tick()
    assert live.picture is not first


def test_the_drawing_thread_reads_the_picture_alone():
    live = view(80)
    del live.agenda
    assert drawn(live)


def test_before_the_study_is_open_the_view_says_what_it_waits_for():
    assert "starting the workers" in drawn(LiveView(lambda: None, Console(file=io.StringIO(), width=80)))[0]


def lines(**made):
    said = []
    each = EventLines(said.append, lambda: None)
    each.opened(agenda(**made), ("60 duplicates were removed.",), lambda: 0.55)
    said.clear()
    return each, said


def test_an_event_line_begins_with_the_time_that_has_passed():
    each, said = lines()
    each.happened("lost", "trial 1 lost its worker", 1)
    assert said == [" 1m01s  trial 1 lost its worker"]


def test_an_end_is_one_line_and_says_whether_it_is_the_best():
    each, said = lines()
    each.happened("ended", "budget", 1)
    each.happened("ended", "pruned", 2)
    assert said[0].endswith("trial 1 complete  0.6100  linear, depth 2, dim 64, adamw")
    assert said[1].endswith(
        "trial 2 pruned at 100 %  0.6200  linear, depth 2, dim 64, adamw  new best +7.0 pp over tf-idf"
    )


def test_a_failure_is_told_once():
    each, said = lines()
    each.happened("failed", "trial 1 failed: boom", 1)
    each.happened("ended", "error", 1)
    assert len(said) == 1


def test_a_beginning_is_worth_no_line_but_that_of_the_finals():
    rerun = {"number": 0, "trial": 1, "repeat": 0, "state": "RUNNING", "value": None}
    each, said = lines(reruns=[rerun])
    each.happened("begun", "trial", 1)
    each.happened("begun", "rerun", 0)
    assert len(said) == 1
    assert "finals: trials 0, 1, 2 are trained again" in said[0]


def test_the_end_of_a_rerun_is_told_with_its_value():
    rerun = {"number": 0, "trial": 1, "repeat": 1, "state": "COMPLETE", "value": 0.7}
    each, said = lines(reruns=[rerun])
    each.happened("rerun ended", "budget", 0)
    assert said[0].endswith("rerun 2 of trial 1: 0.7000")


# -- what may win ------------------------------------------------------------------------------------------------------

BESIDE = Beside("tf-idf", lambda: 0.55)


def over_a_limit(made, number):
    made.ledger.trials[number].constraints = {"latency_ms": 1.0}
    return made


def test_a_trial_that_cannot_win_is_not_the_best():
    made = agenda(ended=2)
    assert best_trial(made, made.best_values()) == 2, "it still runs"
    made.ledger.trials[2].state = TrialState.FAIL
    assert best_trial(made, made.best_values()) == 1
    assert best_trial(over_a_limit(made, 1), made.best_values()) == 0


@pytest.mark.parametrize("cause", ["limit", "lost", "memory"])
def test_an_end_that_came_with_its_reason_is_told_once(cause):
    assert told(agenda(), BESIDE, "ended", cause, 0) is None


def test_a_reopened_study_is_searched_and_its_finals_are_told_again():
    rerun = {"number": 0, "trial": 1, "repeat": 0, "state": "COMPLETE", "value": 0.7}
    made = agenda(reruns=[rerun])
    made.ledger.study.spec["reopened"] = 1
    assert progress_of(made, BESIDE).phase == "searching"
    assert told(made, BESIDE, "begun", "rerun", 0) is None
    assert told(made, BESIDE, "begun", "rerun", 1).startswith("finals: trials ")
    made.ledger.reruns[1] = {**rerun, "number": 1, "repeat": 1}
    assert progress_of(made, BESIDE).phase == "finals 2 of 9"


def test_after_q_only_what_runs_is_waited_for():
    made = agenda(ended=5)
    whole = progress_of(made, BESIDE).left
    made.stopped = True
    assert whole - progress_of(made, BESIDE).left == 4 * 4.0 / 2, "four trials of 4 s that do not begin, on two workers"


def test_the_time_left_follows_from_what_trials_took_in_the_mean():
    made = agenda(ended=5)
    before = progress_of(made, BESIDE).left
    made.ledger.trials[0].user_attrs["seconds"] = 29.0  # one whole trial among four that were stopped
    assert progress_of(made, BESIDE).left - before == 5 * 25.0 / 5 / 2


def test_a_refit_that_was_asked_for_is_in_the_time_that_is_left():
    made = agenda(ended=5)
    before = progress_of(made, BESIDE).left
    made.refit_seconds = lambda: 30.0
    assert progress_of(made, BESIDE).left == before + 30.0


def test_gpu_hours_are_a_budget_of_the_view_too():
    made = agenda(ended=2)
    made.budget, made.ledger.gpu_hours = Budget(gpu_hours=2.0), 0.5
    made.seconds_left = lambda: 5400.0
    picture = progress_of(made, BESIDE)
    assert (picture.share, picture.left) == (0.25, 5400.0)


def test_a_cancelled_trial_is_not_called_complete():
    assert told(agenda(), BESIDE, "ended", "cancelled", 0).startswith("trial 0 cancelled  0.6000")
