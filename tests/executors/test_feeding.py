"""What feeds Tune, without Tune: a study without torch, and trials that are nothing but their ids."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import SPACE, Desk, quick

from deepmine_auto.executors.ray import feeding, nodes
from deepmine_auto.executors.ray.feeding import AgendaScheduler, AgendaSearcher
from deepmine_auto.executors.resources import Resources
from deepmine_auto.messages import Assignment, Saved, to_plain
from deepmine_auto.storage import tables
from deepmine_auto.study.budget import Budget
from deepmine_auto.training.ends import AGAIN, BROKEN, DeviceBroken

KEY = ("trial", 0)


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def searcher_of(desk: Desk, most: int = 9, trials: int = 3) -> AgendaSearcher:
    return AgendaSearcher(desk.agenda(desk.begin(), Budget(trials=trials)), Resources(2), most)


def assigned(searcher: AgendaSearcher, trial_id: str) -> Assignment:
    return Assignment.from_json(searcher.suggest(trial_id)["assignment"])


def trial(trial_id: str, status: str = "RUNNING") -> Any:
    return SimpleNamespace(
        trial_id=trial_id, status=status, temporary_state=SimpleNamespace(ray_actor=f"actor {trial_id}")
    )


def written(folder: Path, error: str) -> str:
    """Where Tune writes what went wrong."""
    (folder / "error.txt").write_text(error)
    return str(folder / "error.txt")


def controller(*trials: Any) -> Any:
    return SimpleNamespace(get_trials=lambda: list(trials))


def heard(searcher: AgendaSearcher, trial_id: str, assignment: Assignment, count: int) -> None:
    """Let a worker say so many of its messages."""
    scheduler = AgendaScheduler(searcher, lambda: None)
    for message, _ in zip(quick(assignment, None), range(count), strict=False):
        scheduler.on_trial_result(None, trial(trial_id), {"message": json.dumps(to_plain(message))})


@pytest.mark.parametrize(
    ("error", "why"),
    [
        ("The actor died because its node was low on memory: 22 of 23 GB.", feeding.LOW_ON_MEMORY),
        ("The actor died unexpectedly.", "its process ended"),
        (f"DeviceBroken: {BROKEN}: CUDA error: an assert. {AGAIN}", f"{BROKEN}: CUDA error: an assert."),
        (None, "its process ended"),
    ],
)
def test_why_a_worker_was_lost_is_said_where_ray_knows(desk, tmp_path, error, why):
    searcher = searcher_of(desk)
    assigned(searcher, "a")
    lost = SimpleNamespace(trial_id="a", error_file=error and written(tmp_path, error))
    AgendaScheduler(searcher, lambda: None).on_trial_error(None, lost)
    searcher.on_trial_complete("a", error=True)
    (told,) = [each["text"] for each in searcher.agenda.ledger.store.rows(tables.events, 1) if each["kind"] == "lost"]
    assert told == f"trial 0 lost its worker: {why}"


def test_a_plugin_that_breaks_a_second_gpu_is_to_blame(desk, tmp_path):
    searcher, error = searcher_of(desk), DeviceBroken("CUDA error: an assert", "attention/mine")
    for at in "ab":
        assigned(searcher, at)
        lost = SimpleNamespace(trial_id=at, error_file=written(tmp_path, f"RayTaskError: {error}"))
        AgendaScheduler(searcher, lambda: None).on_trial_error(None, lost)
        searcher.on_trial_complete(at, error=True)
    first = desk.trials(searcher.agenda.ledger.study)[0]
    assert (first.user_attrs["cause"], first.user_attrs["plugin"]) == ("plugin", "attention/mine")
    assert first.user_attrs["reason"] == f"{BROKEN}, which ran attention/mine: CUDA error: an assert."


def test_what_a_worker_is_ended_for_with_one_row_too_is_too_large_itself(desk, tmp_path):
    study = desk.begin(space=replace(SPACE, fixed={**SPACE.fixed, "training/batch": 2}))
    searcher = AgendaSearcher(desk.agenda(study, Budget(trials=1)), Resources(2), 9)
    for at in "abc":
        assigned(searcher, at)
        lost = SimpleNamespace(trial_id=at, error_file=written(tmp_path, "The node was low on memory."))
        AgendaScheduler(searcher, lambda: None).on_trial_error(None, lost)
        searcher.on_trial_complete(at, error=True)
    attempts = desk.store.rows(tables.attempts, study.id)
    assert [(row["because"], row["halvings"]) for row in attempts if row["number"] == 0] == [
        ("begun", 0), ("lost", 0), ("memory", 1),
    ]  # fmt: skip
    first = desk.trials(study)[0]
    assert (first.state.name, first.user_attrs["cause"]) == ("FAIL", "memory")
    assert first.user_attrs["reason"].startswith("its worker went away, the last of 3 times: Ray ended it")


def test_a_worker_that_was_given_up_is_not_heard_and_not_given_up_again(desk):
    """Its trial goes on under the same key, as another trial of Tune's."""
    searcher = searcher_of(desk)
    first = assigned(searcher, "a")
    searcher.gone("a", "hung", "silent")
    second = assigned(searcher, "b")
    assert (second.key, second.attempt) == (first.key, first.attempt + 1)
    heard(searcher, "a", first, 3)
    searcher.on_trial_complete("a", error=True)
    assert desk.store.rows(tables.reports, searcher.agenda.ledger.study.id) == []
    assert list(searcher.agenda.running) == [KEY]


def test_work_of_a_worker_that_is_lost_or_told_to_go_is_handed_out_again(desk):
    searcher = searcher_of(desk)
    assigned(searcher, "a")
    searcher.on_trial_complete("a", error=True)
    assigned(searcher, "b")
    for step, leaves in ((1, False), (2, True)):
        assert list(searcher.agenda.running) == [KEY], "a checkpoint alone takes nobody away"
        message = json.dumps(to_plain(Saved(step, f"trial-0/attempt-2/step-000000{step}", 1.0, leaves)))
        AgendaScheduler(searcher, lambda: None).on_trial_result(None, trial("b"), {"message": message})
    assert (assigned(searcher, "c").key, assigned(searcher, "d").key) == (KEY, ("trial", 1))
    rows = desk.store.rows(tables.attempts, searcher.agenda.ledger.study.id)
    assert [row["because"] for row in rows if row["number"] == 0] == ["begun", "lost", "preempted"]


def test_a_tuner_hands_out_its_share_and_ends_when_that_has_ended(desk):
    searcher = searcher_of(desk, most=1)
    first = assigned(searcher, "a")
    assert searcher.suggest("b") is None
    heard(searcher, "a", first, 5)
    assert searcher.suggest("b") == searcher.FINISHED
    assert not searcher.agenda.done


def test_a_tuner_ends_when_all_is_done(desk):
    searcher = searcher_of(desk, trials=1)
    heard(searcher, "a", assigned(searcher, "a"), 5)
    searcher.agenda._reruns_left = list
    assert searcher.suggest("b") == searcher.FINISHED


def test_what_waits_for_a_worker_does_not_hang(desk, monkeypatch):
    """There may be fewer workers than there were: a node can be lost for good."""
    killed = []
    monkeypatch.setattr(feeding, "LOOK_SECONDS", -1.0)
    monkeypatch.setattr(feeding.ray, "kill", killed.append)
    monkeypatch.setattr("deepmine_auto.study.hanging.patience", lambda *_: 5.0)
    searcher = searcher_of(desk)
    assigned(searcher, "a"), assigned(searcher, "b")
    searcher.agenda.heard_at = dict.fromkeys(searcher.agenda.heard_at, -1000000000.0)
    waits, gone = trial("b", "PENDING"), trial("gone", "PENDING")
    chosen = AgendaScheduler(searcher, lambda: None).choose_trial_to_run(controller(trial("a"), waits, gone))
    assert chosen is waits
    assert killed == ["actor a"]
    assert list(searcher.agenda.running) == [("trial", 1)]
    assert searcher.keys == {"b": ("trial", 1)}


@pytest.fixture
def ended(monkeypatch):
    """What was ended: actors by their names, and Tune's trials by their ids."""
    ended = []
    monkeypatch.setattr(feeding, "LOOK_SECONDS", -1.0)
    monkeypatch.setattr(feeding.ray, "kill", ended.append)
    return ended


def looked(searcher: AgendaSearcher, ended: list, *trials: Any) -> None:
    """Let Tune ask what is to be run."""
    tune = controller(*trials)
    tune.stop_trial = lambda each: ended.append(each.trial_id)
    AgendaScheduler(searcher, lambda: None).choose_trial_to_run(tune)


def test_after_a_minute_it_is_told_once_that_trials_wait_for_a_worker(desk, monkeypatch):
    """Others may use the cluster, for ever."""
    clock = [0.0]
    monkeypatch.setattr(feeding, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(feeding.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(feeding.ray, "available_resources", lambda: {"CPU": 2.0, "GPU": 0.5})
    searcher = searcher_of(desk)
    assigned(searcher, "a")
    scheduler = AgendaScheduler(searcher, lambda: None)
    searcher.agenda.hung = list
    for seconds, status in ((5, "PENDING"), (64, "PENDING"), (66, "PENDING"), (70, "PENDING"), (72, "RUNNING")):
        clock[0] = float(seconds)
        scheduler.choose_trial_to_run(controller(trial("a", status)))
    told = [each["text"] for each in searcher.agenda.ledger.store.rows(tables.events, 1) if each["kind"] == "waiting"]
    what = "1 of what was begun wait for workers: 0.5 GPUs and 2 cores of Ray are free, and others may have the rest"
    assert told == [what]


def test_what_waits_for_a_worker_ends_at_the_deadline(desk, ended):
    """On a cluster that has no room, nobody would ever say a word at which the clock is looked at."""
    searcher = searcher_of(desk)
    assigned(searcher, "a")
    looked(searcher, ended, trial("a", "PENDING"))
    assert ended == []
    searcher.agenda.seconds_left = lambda: 0.0
    looked(searcher, ended, trial("a", "PENDING"))
    assert (ended, searcher.keys, searcher.agenda.running) == (["a"], {}, {})
    (row,) = desk.trials(searcher.agenda.ledger.study)
    assert row.user_attrs["cause"] == "deadline"
    assert searcher.suggest("b") == searcher.FINISHED


def test_a_worker_that_is_silent_after_the_deadline_is_ended(desk, ended):
    searcher = searcher_of(desk)
    heard(searcher, "a", assigned(searcher, "a"), 2)
    searcher.agenda.seconds_left = lambda: 0.0
    looked(searcher, ended, trial("a"))
    assert ended == [], "it has just been heard"
    searcher.agenda.heard_at[KEY] -= feeding.LATE_SECONDS + 1.0
    looked(searcher, ended, trial("a"))
    assert ended == ["actor a"]
    searcher.on_trial_complete("a", error=True)
    (row,) = desk.trials(searcher.agenda.ledger.study)
    assert (row.state.name, row.user_attrs["cause"]) == ("PRUNED", "deadline")


def test_a_pause_of_the_driver_itself_is_nobodys_silence(desk, monkeypatch):
    """A laptop that sleeps, or SIGSTOP: what workers said meanwhile waits to be heard."""
    killed = []
    monkeypatch.setattr(feeding.ray, "kill", killed.append)
    monkeypatch.setattr("deepmine_auto.study.hanging.patience", lambda *_: 120.0)
    searcher = searcher_of(desk)
    assigned(searcher, "a")
    scheduler, heard_at = AgendaScheduler(searcher, lambda: None), searcher.agenda.heard_at[KEY]
    scheduler.looked = heard_at + 100.0 - 3700.0
    searcher.agenda.heard_at[KEY] = heard_at - 3700.0
    scheduler.choose_trial_to_run(controller(trial("a")))
    assert killed == [], "a hundred seconds of silence, and then an hour's pause"
    searcher.agenda.heard_at[KEY] -= 30.0
    scheduler.looked -= 2 * feeding.LOOK_SECONDS
    scheduler.choose_trial_to_run(controller(trial("a")))
    assert killed == ["actor a"], "what it was silent before counts"


def test_the_agenda_is_not_asked_at_every_turn_what_hangs(desk, monkeypatch):
    searcher = searcher_of(desk)
    assigned(searcher, "a")
    monkeypatch.setattr(searcher.agenda, "hung", lambda: pytest.fail("it was asked"))
    assert AgendaScheduler(searcher, lambda: None).choose_trial_to_run(controller(trial("a"))) is None


def test_tune_gets_no_copy_and_no_state_of_the_ledger(desk):
    searcher = searcher_of(desk)
    scheduler = AgendaScheduler(searcher, lambda: None)
    assert copy.deepcopy(searcher) is searcher
    assert copy.deepcopy(scheduler) is scheduler
    assert searcher.__getstate__() == scheduler.__getstate__() == {}


def test_only_other_living_nodes_that_can_train_are_asked(monkeypatch):
    def node(name: str, alive: bool = True, **has: float) -> dict[str, Any]:
        return {"NodeID": name, "Alive": alive, "Resources": has}

    there = [
        node("here", CPU=1),
        node("dead", False, CPU=1),
        node("head", memory=1e9),
        node("a", CPU=1),
        node("b", GPU=1),
    ]
    monkeypatch.setattr(nodes.ray, "nodes", lambda: there)
    monkeypatch.setattr(nodes.ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "here"))
    assert [each["NodeID"] for each in nodes._others()] == ["a", "b"]
