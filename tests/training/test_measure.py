"""What a trial says of its costs, and that saying it changes nothing.

Shapes: B batch, L length, D dim.
"""

import json

import pytest
import torch
from alike import CERTAIN
from tiny_texts import TECHNIQUES, assignment, kept
from torch import nn

from deepmine_auto.contracts import Applied, Batch, Mixed
from deepmine_auto.host import the_host
from deepmine_auto.messages import Ended, Reported
from deepmine_auto.objectives import COSTS
from deepmine_auto.training import loop, measure, trial
from deepmine_auto.training.loop import Training
from deepmine_auto.training.measure import costs_of, latency_ms, peak_bytes
from deepmine_auto.training.step import OneStep, _whole_loss


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return kept(tmp_path_factory.mktemp("study") / "study")


def begun(folder, number, **changed):
    """A training that has stood its first steps."""
    training = Training(assignment(folder, number=number, **changed), the_host())
    training._train_until(4)
    return training


# -- what is said ------------------------------------------------------------------------------------------------------


def test_every_report_and_the_end_carry_the_costs(folder):
    *reports, end = trial.messages(assignment(folder, number=0), the_host())
    costs = {name: reports[0].metrics[name] for name in COSTS}
    assert all(each > 0 for each in costs.values())
    assert [{name: each.metrics[name] for name in COSTS} for each in reports] == [costs] * len(reports)
    assert {name: end.facts[name] for name in COSTS} == costs
    assert end.facts["seconds"] > 0


def test_an_error_after_a_report_keeps_the_costs_of_that(folder, monkeypatch):
    said = Reported(
        4, 10, 0.5, {"log_loss": 0.5, "latency_ms": 2.0, "peak_mb": 3.0, "params_million": 0.1}, seconds=7.0
    )

    def messages(self):
        yield said
        raise MemoryError

    monkeypatch.setattr(loop.Training, "messages", messages)
    end = list(trial.messages(assignment(folder, number=1), the_host()))[-1]
    assert (end.cause, end.facts) == (
        "memory",
        {"seconds": 7.0, "latency_ms": 2.0, "peak_mb": 3.0, "params_million": 0.1},
    )


def test_they_are_measured_once_an_attempt(folder, monkeypatch):
    calls = []
    monkeypatch.setattr(loop, "costs_of", lambda training: calls.append(1) or {"latency_ms": 1.0})
    *reports, _ = Training(assignment(folder, number=2), the_host()).messages()
    assert len(reports) > 1
    assert calls == [1]


def test_an_end_before_the_first_report_has_no_costs(folder):
    training = Training(assignment(folder, number=3), the_host())
    with torch.no_grad():
        next(iter(training.model.parameters())).fill_(float("inf"))
    (end,) = training.messages()
    assert isinstance(end, Ended)
    assert set(end.facts) == {"params_million", "seconds", "training_rows"}


# -- that it changes nothing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", [{}, TECHNIQUES, {"training/batch": 21}])
def test_measuring_leaves_everything_as_it_was(folder, changed):
    """Weights, gradients, buffers, the optimizer, techniques, and what random numbers come next."""
    training = begun(folder, 10, params=changed)
    before = snapshot(training)
    costs_of(training)
    assert snapshot(training) == before


def snapshot(training):
    state, plain = loop.collect(training)
    tensors = {**state, **{f"grad {name}": each.grad for name, each in training.model.named_parameters()}}
    return {name: each.numpy().tobytes() for name, each in tensors.items()}, json.dumps(plain)


class Counting(nn.Module):
    """It counts the batches that it is trained on, and draws while it predicts: both must not show."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 3))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, tokens_BL, keep_BL):
        if self.training:
            self.batches += 1
        return Mixed(torch.rand(len(tokens_BL), 3) @ self.weight)


def test_buffers_that_a_forward_pass_writes_to_are_not_written_to(folder):
    training = begun(folder, 11)
    training.model = Counting()
    before = torch.get_rng_state()
    costs_of(training)
    assert training.model.batches == 0
    assert torch.equal(torch.get_rng_state(), before)


# -- what the numbers mean ---------------------------------------------------------------------------------------------


class Chain(nn.Module):
    """Two layers whose memory is known: the first keeps its input, the gelu its own, the second the gelu's output."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 32, bias=False), nn.Linear(32, 4, bias=False)
        self.second.weight.requires_grad_(False)

    def forward(self, tokens_BL, keep_BL):
        return Mixed(self.second(nn.functional.gelu(self.first(tokens_BL))))


def test_the_peak_is_weights_gradients_states_and_what_the_forward_pass_keeps():
    x_BD = torch.ones(5, 8)
    batch = Batch(x_BD, x_BD > 0, torch.zeros(5))
    model, kept = Chain(), [torch.zeros(7)]
    weights, frozen, input_, hidden, out = 8 * 32, 32 * 4, 5 * 8, 5 * 32, 5 * 4
    expected = 2 * weights + frozen + 7 + input_ + hidden + out  # frozen weights need no gelu output for their gradient
    assert peak_bytes(model, batch, lambda mixed, _: mixed.out.square().sum(), kept) == 4 * expected


def test_memory_that_is_kept_twice_counts_once():
    x_BD = torch.ones(5, 8, requires_grad=True)
    batch = Batch(x_BD, x_BD > 0, torch.zeros(5))
    twice = nn.Identity()
    twice.forward = lambda tokens_BL, keep_BL: Mixed(tokens_BL * tokens_BL)
    assert peak_bytes(twice, batch, lambda mixed, _: mixed.out.sum(), []) == 4 * 5 * 8


def peaks(folder, number, **changed):
    return costs_of(begun(folder, number, **changed))["peak_mb"]


def test_the_peak_is_the_same_in_every_attempt_and_for_every_seed(folder):
    """It stands in objectives and limits, and a study that was killed must decide as one that was not."""
    assert len({peaks(folder, 20, seed=seed, attempt=attempt) for seed, attempt in [(1, 1), (1, 2), (2, 1)]}) == 1


def test_the_peak_shrinks_with_halvings_and_with_processes(folder):
    params = {**CERTAIN, "training/batch": 64}
    whole = peaks(folder, 21, params=params)
    half = peaks(folder, 22, halvings=1, params=params)
    training = begun(folder, 23, params=params)
    training.assignment = assignment(folder, number=23, processes=2, params=params)
    assert half < whole
    assert costs_of(training)["peak_mb"] == half


def test_optimizers_and_techniques_that_hold_copies_cost_memory(folder):
    sgd, adamw = ({"optimizer/kind": "sgd"}, {"optimizer/kind": "adamw"})
    assert peaks(folder, 24, params=sgd) < peaks(folder, 24, params=adamw)
    assert peaks(folder, 24, params=adamw) < peaks(folder, 24, params={**adamw, "technique/ema/use": True})


def test_what_techniques_hold_beside_their_checkpoint_costs_memory_too(folder):
    class Holding(Applied):
        def holds(self):
            return [torch.zeros(250_000)]

    training = begun(folder, 26)
    before = costs_of(training)["peak_mb"]
    training.techniques["holding"] = Holding()
    assert costs_of(training)["peak_mb"] == pytest.approx(before + 1.0)


PASSES = {"r_drop": 2, "vat": 2, "pseudo_labels": 2, "fgm": 1, "awp": 1, "mixup": 1}
"""Of how many passes a step with a technique has the activations at once."""


@pytest.mark.parametrize(("technique", "passes"), PASSES.items())
def test_the_activations_of_each_pass_that_is_kept_count_unless_one_part_is_there_at_a_time(
    folder, monkeypatch, technique, passes
):
    monkeypatch.setattr(measure, "_saved_bytes", lambda *_: 10 * measure.MB)
    use = {f"technique/{technique}/use": True}
    for halvings, more in ((0, 10.0 * (passes - 1)), (1, 0.0)):
        plain, with_it = (peaks(folder, 27, halvings=halvings, params=each) for each in ({}, use))
        assert with_it == pytest.approx(plain + more, abs=1e-3)


def test_what_is_said_of_r_drop_is_what_its_whole_loss_keeps(folder):
    use = {"technique/r_drop/use": True}
    training = begun(folder, 28, params=use)
    step = OneStep(training, measure._longest(training))
    really = measure._saved_bytes(lambda: _whole_loss(training, step), training.model.parameters())
    second = peaks(folder, 28, params=use) - peaks(folder, 29)
    assert second * measure.MB == pytest.approx(really / 2, rel=0.05)


def test_the_row_that_is_timed_has_the_median_length_and_no_other(folder):
    training = begun(folder, 25)
    row = measure._middle(training)
    assert row.tokens_BL.shape[0] == 1
    lengths = sorted(training.validation.lengths)
    assert row.tokens_BL.shape[1] == lengths[len(lengths) // 2]
    longest = measure._longest(training)
    assert longest.tokens_BL.shape == (16, max(training.train.lengths))


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless a model moves it."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(measure.time, "perf_counter", lambda: Clock.now)
    return Clock


class Slow(nn.Module):
    def __init__(self, clock, seconds):
        super().__init__()
        self.clock, self.seconds, self.modes = clock, list(seconds), []

    def forward(self, tokens_BL, keep_BL):
        self.modes.append((self.training, torch.is_inference_mode_enabled()))
        self.clock.now += self.seconds.pop(0)


ROW = Batch(torch.ones(1, 4), torch.ones(1, 4) > 0, torch.zeros(1))


def test_the_latency_is_the_median_without_the_first_as_predictions_are_made(clock):
    model = Slow(clock, [9e-3, 1e-3, 2e-3, 1e-3, 3e-3, 2e-3, 8e-3, 2e-3])
    assert latency_ms(model, ROW) == pytest.approx(2.0)
    assert set(model.modes) == {(False, True)}


def test_a_slow_model_is_timed_once_and_not_more_often(clock):
    model = Slow(clock, [4.0, 3.0, 1.0])
    assert latency_ms(model, ROW) == pytest.approx(3000.0)
    assert model.seconds == [1.0]
