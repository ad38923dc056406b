"""Self-pretraining: the steps before those of the task learn from inputs alone, and the task begins as if there were
none."""

from dataclasses import replace
from itertools import chain

import pytest
import torch
from alike import CERTAIN, SGD, add_extra_losses, assert_alike, curve, last_weights
from tiny_texts import TECHNIQUES, assignment, kept, rows

from deepmine_auto import Applied
from deepmine_auto.host import the_host
from deepmine_auto.messages import Beat, Ended, Reported, Saved
from deepmine_auto.planning import calibrating
from deepmine_auto.training import loop, parallel, trial
from deepmine_auto.training.loop import Training
from deepmine_auto.training.measure import costs_of
from deepmine_auto.training.recipe import rate_factor
from deepmine_auto.training.step import take_step
from deepmine_plugins.techniques.denoising import _Guess

LOOSE = [each.rsplit(" ", 1)[0] for each in rows(140).inputs[80:]]
BEFORE = {"technique/denoising/use": True, "technique/denoising/before": 0.5}
STEPS, FIRST = 16, 8
"""The steps of the task, four epochs of four batches, and those before them."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return kept(tmp_path_factory.mktemp("study") / "study")


def training_of(folder, **params):
    return Training(assignment(folder, params={**CERTAIN, **BEFORE, **params}), the_host())


def run(work):
    return [each for each in trial.messages(work, the_host()) if not isinstance(each, Beat)]


def before_task(training):
    """Take the steps before the task, and return what the model read in them."""
    read = []
    hook = training.model.register_forward_hook(lambda _, args, __: read.append(args[0]))
    training.model.train()
    torch.manual_seed(0)  # by it words are hidden
    for _ in range(FIRST):
        take_step(training, *training.draw())
    hook.remove()
    return read


def weights_of(training):
    return {name: each.detach().clone() for name, each in training.model.named_parameters()}


def test_they_come_before_the_first_report_and_count_in_no_share(folder):
    with_first, without = (
        [each for each in run(assignment(folder, params=each, number=at)) if isinstance(each, Reported)]
        for at, each in enumerate((BEFORE, {}))
    )
    assert [each.step for each in with_first] == [FIRST + each.step for each in without]
    assert [each.share for each in with_first] == [each.share for each in without]
    assert [each.value for each in with_first] != [each.value for each in without]


def test_signs_of_life_count_all_steps(folder, monkeypatch):
    monkeypatch.setattr(loop, "BEAT_SECONDS", 0.0)
    beats = [each for each in training_of(folder).messages() if isinstance(each, Beat)]
    assert {each.steps for each in beats} == {FIRST + STEPS}
    assert beats[0].step < FIRST, "the first evaluation is further away"


def test_a_checkpoint_is_due_at_each_rung_of_the_task(folder):
    *reports, end = run(assignment(folder, params=BEFORE, number=5, rungs=(111, 333)))
    first_after = [next(each for each in reports if each.share >= rung) for rung in (111, 333)]
    assert all(each.checkpoint and each.checkpoint.endswith(f"{each.step:07d}") for each in first_after)
    assert isinstance(end, Ended)


def test_labels_do_not_matter_to_them(folder):
    one, other = training_of(folder), training_of(folder)
    other.train = replace(other.train, targets=1 - other.train.targets)
    for each in (one, other):
        before_task(each)
    apart = zip(weights_of(one).values(), weights_of(other).values(), strict=True)
    assert all(torch.equal(*each) for each in apart)


def test_the_backbone_moves_and_the_head_learns_nothing(folder):
    training = training_of(folder, **{"optimizer/kind": "sgd"})
    begun = weights_of(training)
    before_task(training)
    moved = {name for name, each in weights_of(training).items() if not torch.equal(each, begun[name])}
    assert any(name.startswith("backbone.") for name in moved)
    assert not any(name.startswith("head.") for name in moved)


def test_the_task_begins_with_an_epoch_of_all_rows(folder):
    training = training_of(folder, **{"training/epochs": 1})
    read = []
    training.model.train()
    for _ in range(2 + 4):
        batch, _ = training.draw()
        read.append(batch.rows_B.tolist())
        take_step(training, batch)
    before, of_task = (list(chain(*each)) for each in (read[:2], read[2:]))
    assert sorted(of_task) == list(range(len(training.train)))
    assert {*before} < {*of_task}, "half an epoch came before"


def test_the_task_begins_with_an_optimizer_that_remembers_nothing(folder):
    training = training_of(folder)
    before_task(training)
    first, step = training.optimizer, next(iter(training.optimizer.state.values()))["step"]
    assert int(step) == FIRST
    take_step(training, *training.draw())
    assert training.optimizer is not first
    assert int(next(iter(training.optimizer.state.values()))["step"]) == 1


def test_both_parts_warm_up_and_cool_down(folder, monkeypatch):
    training = training_of(folder, **{"schedule/warmup": 0.25})
    rates = []
    move = torch.optim.AdamW.step

    def step(optimizer, *args, **options):
        rates.append(optimizer.param_groups[0]["lr"])
        return move(optimizer, *args, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    training.model.train()
    for _ in range(FIRST + STEPS):
        take_step(training, *training.draw())
    for part, steps in ((rates[:FIRST], FIRST), (rates[FIRST:], STEPS)):
        expected = [rate_factor(training.warm_up, training.schedule, each, steps) for each in range(steps)]
        assert part == [training.rates[0] * each for each in expected]


def test_no_technique_is_asked_in_them_unless_it_scales(folder):
    class Watched(Applied):
        def __init__(self, factor):
            self.factor, self.asked = factor, []

        def scale(self):
            return self.factor

        def on_batch(self, batch):
            self.asked.append("on_batch")
            return batch

        def on_loss(self, loss, outputs, targets):
            self.asked.append("on_loss")
            return loss

        def after_backward(self, step):
            self.asked.append("after_backward")
            for each in step.training.model.parameters():
                if each.grad is not None:
                    each.grad /= self.factor

        def after_step(self, model):
            self.asked.append("after_step")

    class Plain(Watched):
        scale = Applied.scale

    ways = {}
    for factor, kind in ((1.0, Plain), (8.0, Watched)):
        training = training_of(folder, **{"optimizer/kind": "sgd"})
        training.techniques["watched"] = watched = kind(factor)
        before_task(training)
        assert watched.asked == ([] if kind is Plain else ["after_backward"] * FIRST)
        ways[factor] = weights_of(training)
    for name, each in ways[1.0].items():
        torch.testing.assert_close(ways[8.0][name], each)


def test_every_second_batch_is_of_rows_without_labels_where_there_are_such(tmp_path):
    training = training_of(kept(tmp_path / "study", LOOSE))
    known = {tuple(each) for each in training.prepared.encode(LOOSE)}
    read = before_task(training)
    loose = [all(tuple(filter(None, row)) in known for row in each.tolist()) for each in read]
    assert loose == [False, True] * (FIRST // 2)


@pytest.mark.parametrize("epochs", [3, 4])
def test_interrupted_in_them_or_at_their_end_it_goes_on_bit_for_bit(folder, monkeypatch, epochs):
    """Where there are three epochs, half of one comes before them beside a whole one."""
    work = assignment(folder, params={**BEFORE, **TECHNIQUES, "training/epochs": epochs}, number=7)
    whole = [(each.step, each.value) for each in run(work) if isinstance(each, Reported)]
    for number, asked_at in enumerate((3, 2 * epochs)):
        training = Training(replace(work, number=10 * epochs + number), the_host())
        monkeypatch.setattr(training.team, "stops_at", lambda step, at=asked_at: step >= at)
        *_, saved = training.messages()
        assert isinstance(saved, Saved)
        assert saved.step == asked_at
        torch.manual_seed(number)
        rest = run(replace(work, number=10 * epochs + number, attempt=2, checkpoints=(saved.checkpoint,)))
        assert [(each.step, each.value) for each in rest if isinstance(each, Reported)] == whole


def without_chance(patch):
    """Let the steps before the task learn from what models add to the loss by themselves: nothing is hidden."""
    add_extra_losses(patch)
    patch.setattr(_Guess, "on_tokens", lambda self, tokens_BL, keep_BL: tokens_BL)
    patch.setattr(_Guess, "losses", lambda *_: {})


def work_without_chance(*args):
    """What a rank does."""
    without_chance(pytest.MonkeyPatch())
    parallel._work(*args)


@pytest.mark.slow
def test_several_processes_take_them_together(folder, monkeypatch):
    without_chance(monkeypatch)
    monkeypatch.setattr(parallel, "_work", work_without_chance)
    params = {**BEFORE, **CERTAIN, **SGD, "training/batch": 21, "training/epochs": 3}
    one, several = (run(assignment(folder, params=params, number=20 + each, processes=each)) for each in (1, 2))
    assert one[0].step > 6, one[-1].reason or "half of twelve steps come before"
    assert curve(several) == [(step, pytest.approx(value, abs=1e-5)) for step, value in curve(one)]
    assert_alike(last_weights(several, folder), last_weights(one, folder))
    assert several[-1].cause == "budget"


def test_what_is_measured_is_the_longest_batch_of_all_that_is_learned_from(tmp_path):
    longer = kept(tmp_path / "study", [" ".join(["word"] * 60 + [str(at)]) for at in range(32)])
    peaks = [costs_of(training_of(longer, **{"technique/denoising/before": each}))["peak_mb"] for each in (0.0, 0.5)]
    assert peaks[1] > 2 * peaks[0], "those without labels are read before the task alone"


def test_a_dry_run_counts_them_and_times_both_kinds(folder, monkeypatch):
    training, timed = training_of(folder), []
    monkeypatch.setattr(calibrating, "_step_seconds", lambda of: timed.append(of.progress.step) or 10.0 ** len(timed))
    assert calibrating._steps_seconds(training) == FIRST * 10 + STEPS * 100
    assert timed == [0, FIRST]
