"""The promises catch what they are for: each broken variant below breaks the promise that names its fault."""

import sys
from dataclasses import dataclass, replace
from types import ModuleType
from typing import ClassVar

import pytest
import torch
from torch import nn

from deepmine_auto import (
    AttentionCore,
    AttentionMixer,
    AttentionModifier,
    Caps,
    DenseAttention,
    FusedSoftmax,
    Mask,
    Mixed,
)
from deepmine_auto.contracts import Plugin
from deepmine_auto.errors import BadInput, MissingExtra
from deepmine_auto.testing.checks import check, held, kit_of, run
from deepmine_plugins.attention.linear import Linear
from deepmine_plugins.attention.multi_head import MultiHead
from deepmine_plugins.attention.sliding_window import SlidingWindow


def core(module: type[nn.Module], declared: Caps = MultiHead.caps) -> type[AttentionCore]:
    """A variant of this module that declares what softmax declares."""

    @dataclass(frozen=True, kw_only=True)
    class Broken(AttentionCore):
        name: ClassVar[str] = "broken"
        source: ClassVar[str] = "a test"
        caps: ClassVar[Caps] = declared
        neutral = MultiHead.neutral

        def build(self, shape):
            return module()

    return Broken


def broken(variant, promise: str) -> bool:
    return held(promise, getattr(kit_of(variant)(), f"test_{promise.replace(' ', '_')}")).ok is False


class LeaksPadding(FusedSoftmax):
    def forward(self, q, k, v, mask, *, weights=False):
        return super().forward(q, k, v, replace(mask, padding=None), weights=weights)


class LeaksFuture(FusedSoftmax):
    def forward(self, q, k, v, mask, *, weights=False):
        return super().forward(q, k, v, replace(mask, causal=False), weights=weights)


class AlignsUpperLeft(FusedSoftmax):
    def forward(self, q, k, v, mask, *, weights=False):
        if not mask.causal:
            return super().forward(q, k, v, mask, weights=weights)
        keep = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
        return super().forward(q, k, v, Mask(padding=mask.padding, dense=keep), weights=weights)


class DropsBias(FusedSoftmax):
    def forward(self, q, k, v, mask, *, weights=False):
        return super().forward(q, k, v, replace(mask, bias=None), weights=weights)


class DropsWindow(FusedSoftmax):
    def forward(self, q, k, v, mask, *, weights=False):
        return super().forward(q, k, v, replace(mask, window=None), weights=weights)


class DropsWindowOfMany(FusedSoftmax):
    def forward(self, q, k, v, mask, *, weights=False):
        return super().forward(q, k, v, replace(mask, window=None) if q.shape[2] > 100 else mask, weights=weights)


class DropsWindowOfThePast(FusedSoftmax):
    def forward(self, q, k, v, mask, *, weights=False):
        return super().forward(q, k, v, replace(mask, window=None) if mask.causal else mask, weights=weights)


class LooksNearInLongBatches(FusedSoftmax):
    """It goes by the length of the batch, however much of that is padding."""

    def forward(self, q, k, v, mask, *, weights=False):
        return super().forward(q, k, v, replace(mask, window=(1, 1)) if k.shape[2] > 100 else mask, weights=weights)


class SumsToHalf(DenseAttention):
    def normalize(self, scores):
        return 0.5 * scores.softmax(-1)


class DividesByNothing(DenseAttention):
    def normalize(self, scores):
        return scores.exp() / scores.exp().sum(-1, keepdim=True)

    def normalize_some(self, scores, keep):
        return self.normalize(scores.masked_fill(~keep, -torch.inf))


class OtherWeights(FusedSoftmax):
    def forward(self, q, k, v, mask, *, weights=False):
        mixed = super().forward(q, k, v, mask, weights=weights)
        return mixed if weights else Mixed(mixed.out * 1.001)


class OwnWeights(FusedSoftmax):
    def forward(self, q, k, v, mask, *, weights=False):
        mixed = super().forward(q, k, v, mask, weights=weights)
        return mixed._replace(weights=mixed.weights.flip(1)) if weights else mixed


class WrongGroups(FusedSoftmax):
    def forward(self, q, k, v, mask, *, weights=False):
        repeats = q.shape[1] // k.shape[1]
        return super().forward(q, k.repeat(1, repeats, 1, 1), v.repeat(1, repeats, 1, 1), mask, weights=weights)


class KnowsPositions(DenseAttention):
    def score(self, q, k):
        return super().score(q, k) + 0.1 * torch.arange(k.shape[2])


class StopsGradient(DenseAttention):
    def normalize(self, scores):
        return scores.detach().softmax(-1)


class ThrowsDice(DenseAttention):
    def normalize(self, scores):
        return scores.softmax(-1) + 1e-3 * torch.randn(()) * scores


class RoundsInBetween(FusedSoftmax):
    """The fast form loses digits that the definition keeps."""

    def forward(self, q, k, v, mask, *, weights=False):
        mixed = super().forward(q, k, v, mask, weights=weights)
        return mixed if weights or q.dtype != torch.bfloat16 else Mixed((mixed.out * 8).round() / 8)


class ErrsOnOneToken(FusedSoftmax):
    def forward(self, q, k, v, mask, *, weights=False):
        mixed = super().forward(q, k, v, mask, weights=weights)
        return mixed if weights or k.shape[2] > 1 else Mixed(mixed.out * 1.001)


class LoopsOverTokens(FusedSoftmax):
    def forward(self, q, k, v, mask, *, weights=False):
        parts = [FusedSoftmax.forward(self, each, k, v, mask).out for each in q.split(1, 2)]
        return Mixed(torch.cat(parts, 2))


class LooksAtPadding(FusedSoftmax):
    def forward(self, q, k, v, mask, *, weights=False):
        if mask.padding is not None and mask.padding.all():
            mask = replace(mask, padding=None)
        return super().forward(q, k, v, mask, weights=weights)


class BranchesOnLength(FusedSoftmax):
    def forward(self, q, k, v, mask, *, weights=False):
        return super().forward(q, k, v, mask, weights=weights or q.shape[2] > 100)


class FailsAtOneLength(FusedSoftmax):
    def forward(self, q, k, v, mask, *, weights=False):
        return super().forward(q, k, v, mask, weights=weights or q.shape[2] == 100)


class BakesRowsIn(FusedSoftmax):
    def forward(self, q, k, v, mask, *, weights=False):
        return super().forward(q.reshape(len(q), *q.shape[1:]), k, v, mask, weights=weights)


class LeaksWhenExported(FusedSoftmax):
    def forward(self, q, k, v, mask, *, weights=False):
        mask = replace(mask, padding=None) if torch.compiler.is_exporting() else mask
        return super().forward(q, k, v, mask, weights=weights)


class SeesPaddingInTraining(FusedSoftmax):
    """It takes the mean off values, over all tokens of a batch: in evaluation, off nothing."""

    def forward(self, q, k, v, mask, *, weights=False):
        mean = v.mean((0, 2), keepdim=True) if self.training else 0.0
        return super().forward(q, k, v - mean, mask, weights=weights)


class CountsPaddingInTraining(FusedSoftmax):
    """The more padding, the less it says, whatever stands there."""

    def forward(self, q, k, v, mask, *, weights=False):
        share = mask.padding.float().mean() if self.training and mask.padding is not None else 1.0
        return super().forward(q, k, v * share, mask, weights=weights)


class DropsKeysInTraining(DenseAttention):
    """It draws for every key, also for those that are padding, and does no harm."""

    def normalize(self, scores):
        return nn.functional.dropout(scores.softmax(-1), 0.5, self.training)


class Anneals(FusedSoftmax):
    """Its temperature falls, and stands in no checkpoint."""

    def __init__(self):
        super().__init__()
        self.tau = 2.0

    def step(self, done):
        self.tau = 2.0 - done

    def forward(self, q, k, v, mask, *, weights=False):
        return super().forward(q / self.tau, k, v, mask, weights=weights)


class AnnealsTrainingAlone(Anneals):
    def forward(self, q, k, v, mask, *, weights=False):
        return super().forward(q if self.training else self.tau * q, k, v, mask, weights=weights)


class AnnealsInABuffer(Anneals):
    """As it should."""

    def __init__(self):
        super().__init__()
        del self.tau
        self.register_buffer("tau", torch.tensor(2.0))

    def step(self, done):
        self.tau.fill_(2.0 - done)


class CountsBatches(FusedSoftmax):
    """A number under the name of a hook is none, and is left alone."""

    def __init__(self):
        super().__init__()
        self.register_buffer("step", torch.zeros(()))


class KeepsNoDraw(FusedSoftmax):
    """What it drew when it was built is gone with the process."""

    def __init__(self):
        super().__init__()
        self.register_buffer("noise", torch.rand(()), persistent=False)

    def forward(self, q, k, v, mask, *, weights=False):
        return super().forward(q * self.noise, k, v, mask, weights=weights)


class FailsInMixedPrecision(FusedSoftmax):
    """It puts what was computed in half floats among numbers of the weights' type."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, q, k, v, mask, *, weights=False):
        out, all_of_it = torch.zeros_like(q, dtype=self.weight.dtype), torch.arange(len(q))
        out[all_of_it] = super().forward(q, k, v, mask).out
        return Mixed(self.weight * out)


class ForgetsItsState(nn.Module):
    """A running mean that begins anew at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x_BLD, mask, state, *, weights=False):
        count_L1 = torch.arange(1, x_BLD.shape[1] + 1)[:, None]
        return Mixed(self.weight * x_BLD.cumsum(1) / count_L1), state


def test_a_mixer_that_forgets_its_state_is_found_out():
    @dataclass(frozen=True, kw_only=True)
    class Forgetful(AttentionMixer):
        name: ClassVar[str] = "forgetful"
        source: ClassVar[str] = "a test"
        caps: ClassVar[Caps] = Caps(modes=frozenset({"causal"}), masks=frozenset({"causal"}), decoding="state")

        def build(self, shape):
            return ForgetsItsState()

    assert broken(Forgetful, "decoding equals the whole pass")


@pytest.mark.parametrize(
    ("module", "promise"),
    [
        (LeaksPadding, "padding never leaks"),
        (LooksNearInLongBatches, "a row alone is what it is beside longer ones"),
        (LeaksPadding, "a row alone is what it is beside longer ones"),
        (LeaksFuture, "the future never reaches the past"),
        (AlignsUpperLeft, "one token at a time equals the whole"),
        (DropsBias, "a bias is not dropped"),
        (DropsWindow, "each declared mask hides by itself"),
        (DropsWindowOfMany, "each declared mask hides by itself"),
        (DropsWindowOfThePast, "each declared mask hides by itself"),
        (SumsToHalf, "rows of weights sum to one"),
        (SumsToHalf, "the neutral setting is softmax"),
        (DividesByNothing, "rows that see nothing stay finite"),
        (OtherWeights, "the fast form equals the definition"),
        (OwnWeights, "weights times values are the output"),
        (WrongGroups, "grouped heads equal repeated heads"),
        (KnowsPositions, "shuffled tokens give shuffled outputs"),
        (StopsGradient, "gradients are those of the function"),
        (ThrowsDice, "the same seed gives the same output"),
        (RoundsInBetween, "half precision errs at most twice as much as the definition"),
        (AlignsUpperLeft, "decoding equals the whole pass"),
        (LeaksPadding, "in an encoder padding is not seen"),
        (LeaksFuture, "in a decoder nothing later is seen"),
        (AlignsUpperLeft, "in a decoder nothing later is seen"),
        (LeaksFuture, "between encoder and decoder nothing leaks"),
        (LeaksPadding, "between two lstms nothing leaks"),
        (LeaksPadding, "between encoder and decoder nothing leaks"),
        (SeesPaddingInTraining, "padding is not seen in training"),
        (CountsPaddingInTraining, "padding is not seen in training"),
        (Anneals, "all that training changes stands in the state dict"),
        (AnnealsTrainingAlone, "all that training changes stands in the state dict"),
        (KeepsNoDraw, "all that training changes stands in the state dict"),
        (FailsInMixedPrecision, "it trains in mixed precision"),
        (ErrsOnOneToken, "the fast form equals the definition at both ends of every range"),
        (LoopsOverTokens, "it exports for any batch and length"),
        (LooksAtPadding, "it exports for any batch and length"),
        (BranchesOnLength, "it exports for any batch and length"),
        (FailsAtOneLength, "it exports for any batch and length"),
        (BakesRowsIn, "it exports for any batch and length"),
        (LeaksWhenExported, "it exports for any batch and length"),
    ],
)
def test_a_broken_variant_breaks_the_promise_that_names_its_fault(module, promise):
    assert broken(core(module), promise)


OF_TRAINING = [
    "padding is not seen in training",
    "all that training changes stands in the state dict",
    "it trains in mixed precision",
]


@pytest.mark.parametrize("module", [FusedSoftmax, DropsKeysInTraining, AnnealsInABuffer, CountsBatches])
@pytest.mark.parametrize("promise", OF_TRAINING)
def test_what_is_drawn_annealed_or_counted_as_it_should_be_is_trained(module, promise):
    assert not broken(core(module), promise)


@pytest.mark.parametrize(
    ("changed", "promise"),
    [
        ({"scaling": 1.0}, "the declared cost grows as declared"),
        ({"scaling": 1.0}, "what is computed grows no faster than declared"),
        ({"dtypes": frozenset({"float64", "int8"})}, "every declared dtype computes"),
    ],
)
def test_a_false_declaration_breaks_its_promise(changed, promise):
    assert broken(core(FusedSoftmax, replace(MultiHead.caps, **changed)), promise)


def test_a_fault_in_blocks_is_found_although_short_inputs_never_use_them(monkeypatch):
    blocks = "deepmine_plugins.attention.sliding_window._by_slices"

    def sees_all(q, k, v, mask, window, block):
        return FusedSoftmax()(q, k, v, Mask(padding=mask.padding)).out

    monkeypatch.setattr(blocks, sees_all)
    assert broken(SlidingWindow, "the fast form equals the definition at both ends of every range")


@pytest.mark.parametrize("promise", ["each declared mask hides by itself", "padding never leaks"])
def test_a_leak_in_blocks_is_found_although_short_inputs_never_use_them(promise, monkeypatch):
    blocks = "deepmine_plugins.attention.sliding_window._by_slices"

    def sees_padding(q, k, v, mask, window, block):
        return FusedSoftmax()(q, k, v, replace(mask, padding=None, window=window)).out

    monkeypatch.setattr(blocks, sees_padding)
    assert broken(SlidingWindow, promise)


def test_a_fault_in_chunks_is_found_although_short_inputs_have_one(monkeypatch):
    monkeypatch.setattr("deepmine_auto.model.kernelized._before", torch.zeros_like)
    assert broken(Linear, "the fast form equals the definition at both ends of every range")


@pytest.mark.parametrize("honest", [True, False])
def test_an_onnx_program_is_compared_with_its_layer(honest, monkeypatch):
    def program(layer, inputs, **how):
        return lambda x, keep: (layer(x, keep if honest else torch.ones_like(keep)),)

    monkeypatch.setattr("deepmine_auto.testing.attention_export.TOOLS", ())
    monkeypatch.setattr(torch.onnx, "export", program)
    assert broken(core(FusedSoftmax), "it runs as onnx") is not honest


def test_without_onnxruntime_onnx_is_skipped_with_its_reason(monkeypatch):
    for tool in ("onnx", "onnxscript"):
        monkeypatch.setitem(sys.modules, tool, ModuleType(tool))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = held("it runs as onnx", kit_of(MultiHead)().test_it_runs_as_onnx)
    assert (found.ok, found.detail) == (None, "onnxruntime is not installed")


class SharpensPadding(nn.Module):
    def on_weights(self, weights):
        return weights + 0.1


def test_a_modifier_is_tested_on_softmax():
    @dataclass(frozen=True, kw_only=True)
    class Modifier(AttentionModifier):
        name: ClassVar[str] = "sharpens_padding"
        source: ClassVar[str] = "a test"
        needs = "matrix"
        caps: ClassVar[Caps] = Caps.everywhere(weights="exact", normalized=True, scaling=1.0)
        needs = "matrix"

        def build(self, shape):
            return SharpensPadding()

    assert broken(Modifier, "padding never leaks")
    assert broken(Modifier, "rows of weights sum to one")


HOOK = "a modifier does what a modifier is asked for"


@pytest.mark.parametrize(("hook", "found"), [("on_logits", True), ("on_weights", False)])
def test_a_modifier_whose_hook_is_misspelt_is_found_out(hook, found):
    @dataclass(frozen=True, kw_only=True)
    class Modifier(AttentionModifier):
        name: ClassVar[str] = "sharpens"
        source: ClassVar[str] = "a test"
        needs = "matrix"
        caps: ClassVar[Caps] = Caps.everywhere(weights="exact")

        def build(self, shape):
            return type("Sharpens", (nn.Module,), {hook: lambda self, weights: weights + 0.1})()

    assert broken(Modifier, HOOK) is found


def test_a_promise_that_is_not_given_is_skipped_with_its_reason():
    not_given = {each.promise: each.detail for each in check(Linear) if each.ok is None}
    assert not_given["a bias is not dropped"] == "linear does not declare bias"


def test_a_broken_promise_is_told_with_what_was_drawn():
    told = {each.promise: each.detail for each in check(core(LeaksPadding))}
    assert "Draw 1 (mode)" in told["padding never leaks"]


def test_a_kit_may_ask_for_a_folder_and_for_nothing_else():
    class Kit:
        def test_it_gets_a_folder(self, tmp_path):
            assert tmp_path.is_dir()

        def test_it_gets_no_browser(self, browser):
            raise AssertionError

    first, second = run(Kit)
    assert first.ok is True
    assert second.ok is None
    assert "browser" in second.detail


def test_a_plugin_without_promises_is_refused():
    class Odd(Plugin):
        name = "odd"

    with pytest.raises(BadInput, match="no promises for 'Odd'"):
        check(Odd)


def test_without_hypothesis_the_pip_command_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    for each in ("attention", "drawing"):
        monkeypatch.delitem(sys.modules, f"deepmine_auto.testing.{each}", raising=False)
    with pytest.raises(MissingExtra, match=r"needs hypothesis\. pip install"):
        check(MultiHead)
