"""One trial's training: what it reports, how it ends, and that nobody can tell where it was interrupted."""

import errno
import gc
import json
import math
import os
import pickle
import re
import weakref
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_texts import PARAMS, TECHNIQUES, assignment, kept

from deepmine_auto import Applied
from deepmine_auto.host import the_host
from deepmine_auto.messages import OUT_OF_PATIENCE, Beat, Ended, Reported, Saved, from_plain, to_plain
from deepmine_auto.training import checkpoint, ends, loop, trial
from deepmine_auto.training.loop import Training
from deepmine_auto.training.outputs import outputs_of
from deepmine_auto.training.step import take_step

OPTIMIZERS = {
    "adamw": {"optimizer/kind": "adamw"},
    "lion": {"optimizer/kind": "lion", "optimizer/lion/lr": 1e-3},
    "adafactor": {"optimizer/kind": "adafactor"},
    "sgd": {"optimizer/kind": "sgd"},
}
GOLDEN = Path(__file__).parent.parent / "golden" / "tiny_training.json"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return kept(tmp_path_factory.mktemp("study") / "study")


def run(work):
    """All messages of an assignment but signs of life, and checkpoints between reports, which depend on the clock."""
    messages = Training(work, the_host()).messages()
    return [each for each in messages if not isinstance(each, Beat | Saved) or getattr(each, "leaves", False)]


def same(messages):
    """Messages without times and places."""
    return [
        (each.step, each.share, each.value, {name: n for name, n in each.metrics.items() if name != "latency_ms"})
        if isinstance(each, Reported)
        else (each.cause, each.value, each.step)
        for each in messages
    ]


# -- interrupted -------------------------------------------------------------------------------------------------------


@pytest.fixture
def always_written(monkeypatch):
    """A checkpoint at every evaluation."""
    monkeypatch.setattr(Training, "_due", lambda self: True)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_training_interrupted_after_any_report_goes_on_bit_for_bit(folder, optimizer, always_written):
    work = assignment(folder, params={**TECHNIQUES, **OPTIMIZERS[optimizer]}, number=list(OPTIMIZERS).index(optimizer))
    whole = run(work)
    assert len(whole) >= 10
    assert isinstance(whole[-1], Ended)
    for at, message in enumerate(whole[:-1]):
        torch.manual_seed(at)  # whatever the process did before must not matter
        again = run(replace(work, attempt=2, checkpoints=(message.checkpoint,)))
        assert same(again) == same(whole[at + 1 :]), f"interrupted after step {message.step}"


ADAPTING = {
    "hard": {"attention/kind": "hard"},
    "performer": {"attention/kind": "performer"},
    "adaptive_span": {"attention/adaptive_span/use": True, "attention/adaptive_span/price": 1e-4},
    "denoising": {"technique/denoising/use": True, "technique/denoising/share": 0.3},
    "checkpoint_soup": {"technique/checkpoint_soup/use": True, "technique/checkpoint_soup/start": 0.3},
}


@pytest.mark.parametrize("name", ADAPTING)
def test_what_adapts_is_restored_bit_for_bit(folder, name, always_written):
    work = assignment(folder, params={**ADAPTING[name], "training/epochs": 2}, number=80 + list(ADAPTING).index(name))
    whole = run(work)
    for at, message in enumerate(whole[:-1]):
        torch.manual_seed(at)
        again = run(replace(work, attempt=2, checkpoints=(message.checkpoint,)))
        assert same(again) == same(whole[at + 1 :]), f"interrupted after step {message.step}"


def test_what_adapts_is_told_after_each_step_how_much_of_the_training_is_done(folder, monkeypatch):
    told = []
    monkeypatch.setattr(
        "deepmine_plugins.attention.hard._Hard.step", lambda self, done: told.append(done), raising=True
    )
    run(assignment(folder, params={"attention/kind": "hard", "training/epochs": 1}, number=90))
    steps = len(told)
    assert told == [(each + 1) / steps for each in range(steps)]


def test_the_losses_of_a_variant_are_reported_by_name(folder):
    *reports, _ = run(assignment(folder, params={**ADAPTING["adaptive_span"], "training/epochs": 1}, number=91))
    assert all(each.metrics["loss/span"] >= 0.0 for each in reports)
    *plain, _ = run(assignment(folder, params={"training/epochs": 1}, number=92))
    assert not any(name.startswith("loss/") for each in plain for name in each.metrics)


def test_dropout_and_techniques_take_part_in_what_is_restored(folder, always_written):
    """Otherwise the test above would show nothing: without the generators' states the rest comes out otherwise."""
    work = assignment(folder, params=TECHNIQUES, number=20)
    whole = run(work)
    place = folder / whole[2].checkpoint
    tensors, state = checkpoint.load(place)
    for name in ("rng.torch", "rng.generator", "technique.ema.steps"):
        other = torch.Generator().manual_seed(99).get_state() if name.startswith("rng") else torch.tensor(10**6)
        checkpoint.save(place, {**tensors, name: other}, state)
        again = run(replace(work, attempt=2, checkpoints=(whole[2].checkpoint,)))
        assert same(again) != same(whole[3:]), name


SOUP = {"technique/checkpoint_soup/use": True}


@pytest.mark.parametrize(("techniques", "number"), [(TECHNIQUES, 21), (SOUP, 27)])
def test_the_exported_weights_are_those_of_the_checkpoint(folder, techniques, number):
    work = assignment(folder, params=techniques, number=number)
    end = run(work)[-1]
    training = Training(replace(work, attempt=0, checkpoints=(end.checkpoint,)), the_host())
    outputs = outputs_of(training.model, training.evaluated(), training.validation, training.device)
    assert training.task.scores(outputs, training.validation.targets)["log_loss"] == end.value


@pytest.mark.parametrize(("objective", "sign"), [("macro_f1", 1), ("log_loss", -1)])
def test_techniques_hear_each_value_before_its_checkpoint_and_the_better_the_larger(
    folder, monkeypatch, always_written, objective, sign
):
    events = []
    monkeypatch.setattr(Applied, "judged", lambda self, score: events.append(score))
    saving = checkpoint.saving
    monkeypatch.setattr(checkpoint, "saving", lambda *given: events.append("written") or saving(*given))
    params = {"technique/label_smoothing/use": True, "training/epochs": 1}
    number = 28 if sign > 0 else 29
    *reports, _ = run(assignment(folder, params=params, number=number, objective=objective))
    assert events == [each for report in reports for each in (sign * report.value, "written")]


def test_a_trial_that_waits_for_a_full_disk_gives_signs_of_life(folder, monkeypatch):
    full, write = [OSError(errno.ENOSPC, "full")] * 2, checkpoint._write
    monkeypatch.setattr(checkpoint, "_write", lambda *given: raises(full.pop()) if full else write(*given))
    monkeypatch.setattr(checkpoint.time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(loop, "BEAT_SECONDS", math.inf)
    beat, again, report, *_ = Training(assignment(folder, number=97), the_host()).messages()
    assert [type(each) for each in (beat, again, report)] == [Beat, Beat, Reported]
    assert beat.step == again.step == report.step
    assert (folder / report.checkpoint).is_dir()


def raises(error):
    """What a lambda cannot do."""
    raise error


def test_patience_that_ended_at_a_checkpoint_ends_there_again(folder, always_written):
    work = assignment(
        folder, number=22, params={"training/patience": 1, "optimizer/adamw/lr": 1e-2, "training/epochs": 20}
    )
    whole = run(work)
    assert whole[-1].cause == "patience"
    (end,) = run(replace(work, attempt=2, checkpoints=(whole[-2].checkpoint,)))
    assert replace(end, facts={}) == replace(whole[-1], facts={})


def flipped(file):
    """Change one bit in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def torn(file):
    """Keep half of it."""
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize("name", [checkpoint.TENSORS, checkpoint.STATE, checkpoint.MANIFEST])
@pytest.mark.parametrize("damage", [flipped, torn, Path.unlink])
def test_where_the_newest_checkpoint_is_damaged_the_one_before_is_used(folder, always_written, capsys, damage, name):
    work = assignment(folder, params=TECHNIQUES, number=23)
    whole = run(work)
    newest, before = whole[4].checkpoint, whole[3].checkpoint
    damage(folder / newest / name)
    assert same(run(replace(work, attempt=2, checkpoints=(newest, before)))) == same(whole[4:])
    assert "The checkpoint before it is used." in capsys.readouterr().err


def test_without_a_whole_checkpoint_the_trial_begins_anew(folder):
    work = assignment(folder, number=24)
    assert same(run(replace(work, attempt=2, checkpoints=("checkpoints/none",)))) == same(run(work))


# -- signs of life -----------------------------------------------------------------------------------------------------


def test_between_two_reports_there_are_signs_of_life_which_change_nothing(folder, monkeypatch):
    work = assignment(folder, number=25, params={**TECHNIQUES, "training/epochs": 12})
    whole = run(work)
    monkeypatch.setattr(loop, "BEAT_SECONDS", 0.0)
    *all_messages, end = Training(work, the_host()).messages()
    beats = [each for each in all_messages if isinstance(each, Beat) and not each.judges]
    assert same(run(work)) == same(whole)
    assert [each.step for each in beats] == list(range(1, 49))
    assert {each.steps for each in beats} == {whole[-2].step}
    assert [each.seconds for each in beats] == sorted(each.seconds for each in beats)
    assert end.cause == "budget"


def test_an_evaluation_gives_signs_of_life_too(folder, monkeypatch):
    """Many rows may take a large model longer than a small one takes from report to report."""
    monkeypatch.setattr(loop, "BEAT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "EVALUATION_ROWS", 4)
    messages = list(Training(assignment(folder, number=98), the_host()).messages())
    first = next(at for at, each in enumerate(messages) if isinstance(each, Reported))
    judging = [each for each in messages[:first] if isinstance(each, Beat) and each.judges]
    assert len(judging) > 1
    assert {each.step for each in judging} == {messages[first].step}
    assert min(messages[first].took) > 0


def test_scores_are_computed_once_an_evaluation_but_for_the_first(folder, monkeypatch):
    """Its time may be that of imports."""
    training, scored = Training(assignment(folder, number=99), the_host()), []
    scores = training.task.scores
    directions = training.task.directions
    task = SimpleNamespace(scores=lambda *given: scored.append(1) or scores(*given), directions=directions)
    monkeypatch.setattr(training, "task", task)
    for expected in (2, 3, 4):
        list(training._judge())
        assert len(scored) == expected


def test_the_clock_is_looked_at_at_least_every_so_often(folder, monkeypatch):
    """A step takes half a second on this clock: a sign of life comes every two to four seconds."""

    class Clock:
        now = 0.0

    def slow_step(training, *batches):
        Clock.now += 0.5
        return take_step(training, *batches)

    monkeypatch.setattr(loop.time, "monotonic", lambda: Clock.now)
    monkeypatch.setattr(loop, "take_step", slow_step)
    work = assignment(folder, number=26, params={"training/epochs": 9, "training/batch": 1})
    times = []
    for message in Training(work, the_host()).messages():
        times.append(Clock.now)
        if isinstance(message, Reported):
            break
    assert len(times) > 5
    assert max(after - before for before, after in pairwise(times)) <= 4.0


# -- what is reported --------------------------------------------------------------------------------------------------


def test_reports_grow_to_the_whole_budget_and_name_the_best(folder):
    *reports, end = run(assignment(folder, number=30))
    steps = [each.step for each in reports]
    assert steps == sorted(set(steps))
    assert reports[-1].share == 1000
    assert end.cause == "budget"
    best = min(reports, key=lambda each: each.value)
    assert (end.value, end.step, end.checkpoint) == (best.value, best.step, best.checkpoint)
    assert [each.best_checkpoint for each in reports][-1] == best.checkpoint
    assert end.facts["params_million"] > 0


def test_a_training_learns_what_the_words_say(folder):
    *reports, _ = run(assignment(folder, number=31, objective="macro_f1", params={"training/epochs": 12}))
    assert max(each.value for each in reports) >= 0.85


def test_a_checkpoint_is_written_at_a_new_best_and_at_rungs_alone(folder):
    *reports, _ = run(assignment(folder, number=32, objective="macro_f1", rungs=(500,)))
    best = -math.inf
    for before, each in zip([None, *reports], reports, strict=False):
        due = each.value > best or (before.share if before else 0) < 500 <= each.share
        assert (each.checkpoint is not None) == due, each.step
        best = max(best, each.value)
    written = {f"step-{each.step:07d}" for each in reports if each.checkpoint}
    assert {each.name for each in (folder / "checkpoints/trial-00032/attempt-1").iterdir()} == written


def judged(scores):
    """An evaluation that has no need of a sign of life."""
    yield from ()
    return scores


def test_scores_that_are_numbers_of_numpy_can_be_sent(folder, monkeypatch):
    work = assignment(folder, number=99)
    scores = type(Training(work, the_host()).task).scores
    as_numpy = {"scores": lambda *each: {name: np.float32(value) for name, value in scores(*each).items()}}
    monkeypatch.setattr(type(Training(work, the_host()).task), "scores", as_numpy["scores"])
    reported = next(each for each in run(work) if isinstance(each, Reported))
    assert {type(each) for each in reported.metrics.values()} == {float}
    assert from_plain(json.loads(json.dumps(to_plain(reported)))) == reported


def test_a_task_that_leaves_a_score_out_is_told_so(folder, monkeypatch):
    work = assignment(folder, number=98)
    task = type(Training(work, the_host()).task)
    monkeypatch.setattr(task, "scores", lambda *_: {"macro_f1": 1.0})
    *_, end = trial.messages(work, the_host())
    assert end.cause == "error"
    assert re.search(r"The task 'text_classification' says nothing of its score '\w+'\.", end.reason)


def test_patience_ends_a_trial_after_so_many_evaluations_without_a_new_best(folder, monkeypatch):
    values = iter([0.5, 0.4, 0.45, 0.45, 0.45, 0.1])
    monkeypatch.setattr(Training, "_judge", lambda self: judged({"log_loss": next(values)}))
    *reports, end = run(assignment(folder, number=33, params={"training/patience": 3}))
    assert [each.value for each in reports] == [0.5, 0.4, 0.45, 0.45, 0.45]
    assert (end.cause, end.value, end.step) == ("patience", 0.4, reports[1].step)
    assert [OUT_OF_PATIENCE in each.metrics for each in reports] == [False, False, False, False, True]


@pytest.mark.parametrize("spoilt", [lambda loss: loss * math.nan, lambda loss: loss + math.inf])
def test_a_diverged_training_ends_at_its_last_finite_step(folder, spoilt):
    """A loss that is infinite by a constant leaves the weights finite, so the outputs alone would not show it."""

    class Exploding(Applied):
        def __init__(self, at):
            self.left = at

        def on_loss(self, loss, outputs, targets):
            self.left -= 1
            return loss if self.left >= 0 else spoilt(loss)

    training = Training(assignment(folder, number=34), the_host())
    training.techniques = {"exploding": Exploding(7)}
    *reports, end = training.messages()
    assert end.cause == "diverged"
    assert reports
    assert all(math.isfinite(each.value) for each in reports)
    assert reports[-1].step <= 7
    assert (end.value, end.step) == min((each.value, each.step) for each in reports)


def test_outputs_that_are_not_finite_are_a_divergence_too(folder):
    training = Training(assignment(folder, number=35), the_host())
    with torch.no_grad():
        next(iter(training.model.head.parameters())).fill_(math.inf)
    (end,) = training.messages()
    assert (end.cause, end.value, end.checkpoint) == ("diverged", None, None)


def test_seeds_decide_everything_and_only_they(folder):
    first, again, other = (run(assignment(folder, number=36, seed=seed, params=TECHNIQUES)) for seed in (1, 1, 2))
    assert same(first) == same(again) != same(other)


def test_a_seeded_training_gives_the_numbers_that_it_always_gave(folder):
    """tests/golden/README.md says how to change them on purpose."""
    found = {}
    for name, changed in {"plain": {}, "techniques": TECHNIQUES}.items():
        *reports, _ = run(assignment(folder, number=37, params=changed))
        found[name] = [
            [each.step, *(round(each.metrics[key], 6) for key in ("log_loss", "macro_f1"))] for each in reports
        ]
    golden = json.loads(GOLDEN.read_text())
    for name, rows in found.items():
        assert [row[0] for row in rows] == [row[0] for row in golden[name]], json.dumps(found)
        assert rows == [pytest.approx(row, abs=2e-6) for row in golden[name]], json.dumps(found)


# -- ends that are errors ----------------------------------------------------------------------------------------------


def ended(monkeypatch, folder, error, where=None):
    """The end of a trial whose training raises."""

    def messages(self):
        yield Reported(1, 10, 0.5, {}, seconds=3.0)
        raise error

    monkeypatch.setattr(loop.Training, "messages", where or messages)
    return list(trial.messages(assignment(folder, number=40), the_host()))[-1]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), RecursionError("deep")])
def test_whatever_user_code_raises_becomes_an_end_with_its_traceback(monkeypatch, folder, error):
    end = ended(monkeypatch, folder, error)
    assert (end.cause, end.plugin, end.facts) == ("error", None, {"seconds": 3.0})
    assert f"{type(error).__name__}: {error}" in end.reason.splitlines()[-1]
    assert len(end.reason) <= ends.REASON_BYTES


@pytest.mark.parametrize("told", ["device-side assert triggered\nmore", "unspecified launch failure"])
def test_a_fault_that_stays_with_the_process_is_no_end_of_a_trial(monkeypatch, folder, told):
    """Whatever trains next in it would fail too."""
    with pytest.raises(ends.DeviceBroken, match=f"any more: CUDA error: {told.splitlines()[0]}. Run it") as caught:
        ended(monkeypatch, folder, RuntimeError(f"CUDA error: {told}"))
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.plugin) == (str(caught.value), None), "Ray sends it"


def test_a_fault_of_one_call_is_an_end_as_any_other(monkeypatch, folder):
    told = "CUDA error: invalid configuration argument"
    assert ended(monkeypatch, folder, RuntimeError(told)).cause == "error"


def test_ctrl_c_alone_passes_through(monkeypatch, folder):
    with pytest.raises(KeyboardInterrupt, match="now"):
        ended(monkeypatch, folder, KeyboardInterrupt("now"))


def test_out_of_memory_is_its_own_cause_on_a_cpu_too(monkeypatch, folder):
    assert ended(monkeypatch, folder, MemoryError()).cause == "memory"
    assert ended(monkeypatch, folder, torch.OutOfMemoryError("CUDA out of memory")).cause == "memory"
    for told in (
        "CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate`", "Triton Error [CUDA]: out of memory",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "ncclUnhandledCudaError: Cuda failure 2 'out of memory'",
    ):  # fmt: skip
        assert ended(monkeypatch, folder, RuntimeError(told)).cause == "memory"
    with pytest.raises(RuntimeError, match="can't allocate memory") as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert ended(monkeypatch, folder, caught.value).cause == "memory"


def test_a_training_that_ran_out_of_memory_holds_none_when_its_end_is_heard(monkeypatch, folder):
    """The frames of an error hold all tensors of a step; whoever tries again needs the room."""
    held = []

    def messages(self):
        held.append(weakref.ref(self.model))
        yield Reported(1, 10, 0.5, {})
        raise MemoryError

    monkeypatch.setattr(loop.Training, "messages", messages)
    heard = trial.messages(assignment(folder, number=43), the_host())
    for each in heard:
        if isinstance(each, Ended):
            gc.collect()
            assert held[0]() is None


def test_the_plugin_deepest_in_the_traceback_is_blamed(monkeypatch, folder):
    from deepmine_plugins.backbones.encoder import Encoder

    module = sys_module(Encoder)
    monkeypatch.setattr(module, "TransformerStack", lambda *args, **kwargs: 1 / 0)
    end = list(trial.messages(assignment(folder, number=41), the_host()))[-1]
    assert (end.cause, end.plugin) == ("plugin", "backbone/encoder")
    assert end.reason.splitlines()[-1] == "ZeroDivisionError: division by zero"


def test_params_that_are_refused_blame_no_plugin_that_passed_them_on(folder):
    """The backbone stands in the traceback, and has done nothing wrong; the params are infeasible all the same."""
    end = list(trial.messages(assignment(folder, number=42, params={"model/heads": 5}), the_host()))[-1]
    assert (end.cause, end.plugin) == ("plugin", None)
    assert "5 heads do not divide dim 32" in end.reason.splitlines()[-1]


def sys_module(cls):
    import sys

    return sys.modules[cls.__module__]


def test_the_params_here_are_what_the_plugins_declare(folder):
    from deepmine_auto.model.assemble import plugins_of

    assert ("attention", PARAMS["attention/kind"]) in plugins_of("text_classification", PARAMS)
