"""A worker that is told to go saves at once, and whoever goes on from there cannot tell."""

import math
import os
import signal
from dataclasses import replace

import pytest
import torch
from test_loop import OPTIMIZERS, run, same
from tiny_texts import TECHNIQUES, assignment, kept

from deepmine_auto.host import the_host
from deepmine_auto.messages import Beat, Ended, Reported, Saved
from deepmine_auto.training import checkpoint, loop, preemption, trial
from deepmine_auto.training.loop import Training
from deepmine_auto.training.team import Alone

STEPS = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return kept(tmp_path_factory.mktemp("study") / "study")


@pytest.fixture
def asked_at(monkeypatch):
    """Ask at a step; None takes it back."""

    def ask(step):
        monkeypatch.setattr(Alone, "stops_at", lambda self, at: step is not None and at >= step)

    return ask


def interrupted(work, asked_at, steps):
    """All reports and the end of a trial that is told to go at several steps, one attempt after the other."""
    heard = []
    for attempt, step in enumerate([*steps, None], work.attempt):
        asked_at(step)
        *reports, last = run(replace(work, attempt=attempt))
        heard += reports
        if step is None:
            return [*heard, last]
        assert isinstance(last, Saved)
        assert last.step == step
        assert last.checkpoint.endswith(f"attempt-{attempt}/step-{step:07d}")
        work = replace(work, checkpoints=(last.checkpoint, *work.checkpoints))
        torch.manual_seed(attempt)  # whatever the process did before must not matter


@pytest.mark.parametrize("step", range(STEPS))
def test_asked_after_any_step_a_trial_goes_on_bit_for_bit(folder, asked_at, step):
    optimizer = list(OPTIMIZERS.values())[step % len(OPTIMIZERS)]
    work = assignment(folder, number=step, params={**TECHNIQUES, **optimizer}, rungs=(333, 500))
    whole = run(work)
    assert [each.step for each in whole[:-1]] == [2, 4, 6, 8, 9, 11, 13, 15, 16]
    assert same(interrupted(work, asked_at, [step])) == same(whole)


def test_asked_again_and_again_a_trial_comes_to_the_same_end(folder, asked_at):
    work = assignment(folder, number=20, params=TECHNIQUES)
    assert same(interrupted(work, asked_at, [1, 3, 3, 8, 13])) == same(run(work))


def test_a_trial_in_parts_goes_on_bit_for_bit_too(folder, asked_at):
    work = assignment(folder, number=21, params=TECHNIQUES, halvings=2)
    assert same(interrupted(work, asked_at, [6])) == same(run(work))


def test_a_rung_that_was_passed_before_the_last_step_still_gets_its_checkpoint(folder, asked_at):
    """Between the reports at 375 and 500 thousandths stands a rung at 400; the save at 438 comes after it."""
    work = assignment(folder, number=22, rungs=(400,), objective="macro_f1", params={"optimizer/adamw/lr": 1e-5})
    whole = {each.step: bool(each.checkpoint) for each in run(work)[:-1]}
    assert (whole[6], whole[8], whole[9]) == (False, True, False)
    assert {each.step: bool(each.checkpoint) for each in interrupted(work, asked_at, [7])[:-1]} == whole


def test_where_a_report_has_written_the_step_nothing_is_written_again(folder, asked_at, monkeypatch):
    """The checkpoint is named in the database already, and must not be away for a moment."""
    monkeypatch.setattr(Training, "_due", lambda self: True)
    training = Training(assignment(folder, number=23), the_host())
    messages = training.messages()
    report = next(messages)
    monkeypatch.setattr(checkpoint, "save", lambda *_: pytest.fail("written again"))
    asked_at(0)
    (saved,) = messages
    assert (saved.step, saved.checkpoint) == (report.step, report.checkpoint)


def test_a_trial_whose_loss_was_not_finite_ends_as_diverged_and_is_not_saved(folder, asked_at):
    training = Training(assignment(folder, number=24), the_host())
    with torch.no_grad():
        next(iter(training.model.head.parameters())).fill_(math.inf)
    asked_at(1)
    (end,) = training.messages()
    assert (type(end), end.cause) == (Ended, "diverged")


def test_a_trial_at_its_end_ends(folder, asked_at):
    training = Training(assignment(folder, number=25), the_host())
    messages = training.messages()
    for each in messages:
        if isinstance(each, Reported) and each.share == 1000:
            asked_at(0)
    assert (type(each), each.cause) == (Ended, "budget")


def test_seconds_go_on_counting(folder, asked_at):
    asked_at(3)
    work = assignment(folder, number=26)
    *_, before, saved = run(work)
    assert saved.seconds > before.seconds
    state = checkpoint.load(folder / saved.checkpoint)[1]
    assert state["progress"]["seconds"] == saved.seconds > 0
    checkpoint.save(folder / saved.checkpoint, *edited(folder / saved.checkpoint, seconds=1000.0))
    asked_at(None)
    report = run(replace(work, attempt=2, checkpoints=(saved.checkpoint,)))[0]
    assert 1000 < report.seconds < 1300


@pytest.mark.parametrize("params", [{}, {"technique/denoising/use": True, "technique/denoising/before": 1.0}])
def test_a_checkpoint_is_due_between_two_reports_too_and_what_goes_on_there_is_the_same(folder, monkeypatch, params):
    """Evaluations may be an hour apart, and steps before the task have none."""
    number = 50 + len(params)
    work = assignment(folder, number=number, params={**TECHNIQUES, **params, "training/epochs": 9})
    whole = same(run(work))
    for name in ("BEAT_SECONDS", "SECONDS_BETWEEN_CHECKPOINTS", "WRITING_SHARE"):
        monkeypatch.setattr(loop, name, 0.0)
    often = replace(work, number=number + 10)
    messages = [each for each in trial.messages(often, the_host()) if not isinstance(each, Beat)]
    assert same([each for each in messages if not isinstance(each, Saved)]) == whole
    saved = {each.step: each for each in messages if isinstance(each, Saved)}
    reported = {each.step for each in messages if isinstance(each, Reported)}
    assert not any(each.leaves for each in saved.values())
    assert {*saved} == {*range(1, max(reported))} - reported, "with a report comes a checkpoint of its own"
    monkeypatch.undo()
    for step in (1, 6, max(saved)):
        rest = run(replace(often, attempt=2, checkpoints=(saved[step].checkpoint,)))
        assert same(rest) == [*(each for each in whole[:-1] if each[0] > step), whole[-1]]


def edited(place, **progress):
    tensors, state = checkpoint.load(place)
    return tensors, {**state, "progress": {**state["progress"], **progress}}


@pytest.fixture
def nobody_asked(monkeypatch):
    monkeypatch.setattr(preemption, "_asked", False)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_signal_is_all_it_takes(folder, nobody_asked):
    signal.signal(signal.SIGTERM, preemption.ask_to_stop)
    messages = trial.messages(assignment(folder, number=27), the_host())
    assert isinstance(next(messages), Reported)
    os.kill(os.getpid(), signal.SIGTERM)
    (saved,) = messages
    assert isinstance(saved, Saved)
    assert checkpoint.load(folder / saved.checkpoint)[1]["progress"]["step"] == saved.step == 2
