"""Mixed precision is close to float32 for every variant, is for training alone, and rests where it does not pay."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from tiny_texts import assignment, kept
from torch.utils._python_dispatch import TorchDispatchMode

from deepmine_auto import Applied
from deepmine_auto.contracts import AttentionModifier
from deepmine_auto.host import the_host
from deepmine_auto.model.guard import Refused
from deepmine_auto.testing.technique import STEPS, TechniquePromises, Trial, batch_of
from deepmine_auto.training.loop import Training
from deepmine_auto.training.step import OneStep, take_step
from deepmine_plugins.techniques import mixed_precision
from deepmine_plugins.techniques.mixed_precision import (
    FIRST_SCALE,
    STEPS_TO_DOUBLE,
    AttentionInFloat32,
    MixedPrecision,
    Scaled,
    autocast,
    half_floats,
)

VARIANTS = sorted(the_host().offered("attention"))


class TestMixedPrecision(TechniquePromises):
    technique = MixedPrecision
    at_rest = "" if half_floats("cpu") else "here half floats do not pay"


class TestWhereItPays(TechniquePromises):
    technique = MixedPrecision

    @pytest.fixture(autouse=True)
    def paying(self, monkeypatch):
        monkeypatch.setattr(mixed_precision, "half_floats", lambda device: torch.bfloat16)


class TestWhereFloat16Pays(TechniquePromises):
    technique = MixedPrecision

    @pytest.fixture(autouse=True)
    def paying(self, monkeypatch):
        monkeypatch.setattr(mixed_precision, "half_floats", lambda device: torch.float16)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({}, False), ({"avx512_f": True}, False), ({"avx512_bf16": True}, True), ({"amx_tile": True}, True)],
)
def test_on_a_cpu_it_pays_where_it_multiplies_bfloat16(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert half_floats("cpu") == (torch.bfloat16 if expected else None)


@pytest.mark.parametrize(
    ("native", "capability", "expected"),
    [
        (True, (8, 0), torch.bfloat16),
        (False, (7, 5), torch.float16),
        (False, (7, 0), torch.float16),
        (False, (6, 1), None),
    ],
)
def test_on_a_gpu_it_is_bfloat16_where_that_is_not_emulated_else_float16_where_there_are_tensor_cores(
    monkeypatch, native, capability, expected
):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native and not including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert half_floats("cuda") == expected


def test_elsewhere_nothing_is_changed(monkeypatch):
    assert half_floats("mps") is None
    monkeypatch.setattr(mixed_precision, "half_floats", lambda device: None)
    assert Trial(MixedPrecision()).train(range(STEPS)) == Trial(Plain()).train(range(STEPS))


class Plain:
    """Changes nothing."""

    def build(self, facts):
        return Applied()


def test_training_computes_in_bfloat16_and_judging_in_float32():
    seen = []
    model = Trial(Plain()).model
    model.head.to_classes.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    autocast(model, "cpu", torch.bfloat16)
    batch = batch_of(0)
    for training in (True, False):
        assert model.train(training)(batch.tokens_BL, batch.keep_BL).out.dtype == torch.float32
    assert seen == [torch.bfloat16, torch.float32]
    assert all(each.dtype == torch.float32 for each in model.parameters())


class AttentionTypes(TorchDispatchMode):
    """Notes the type of what fused attention is given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "scaled_dot_product" in func.__name__:
            self.seen.append(args[0].dtype)
        return func(*args, **(kwargs or {}))


def test_attention_in_float32_takes_masks_of_both_kinds_and_heads_in_groups():
    q, k = torch.randn(2, 4, 3, 8, dtype=torch.bfloat16), torch.randn(2, 2, 3, 8, dtype=torch.bfloat16)
    for mask in (torch.ones(3, 3, dtype=torch.bool).tril(), torch.zeros(3, 3, dtype=torch.bfloat16)):
        wide = mask.float() if mask.is_floating_point() else mask
        expected = F.scaled_dot_product_attention(q.float(), k.float(), k.float(), wide, enable_gqa=True)
        with AttentionInFloat32():
            found = F.scaled_dot_product_attention(q, k, k, attn_mask=mask, enable_gqa=True)
        assert torch.equal(found, expected.to(torch.bfloat16))


def test_a_model_that_raises_leaves_mixed_precision():
    model = Trial(Plain()).model
    autocast(model, "cpu", torch.bfloat16)
    with pytest.raises(TypeError, match="NoneType"):
        model.train()(None, None)
    assert not torch.is_autocast_enabled("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return kept(tmp_path_factory.mktemp("study") / "study")


def training_with(folder, name):
    """A training that has not begun, with a variant or modifier of this name and without dropout."""
    variant = the_host().get("attention", name)
    params = {f"attention/{name}/use": True} if issubclass(variant, AttentionModifier) else {"attention/kind": name}
    kind = "encoder" if "bidirectional" in variant.caps.modes else "decoder"
    params |= {"model/kind": kind, f"model/{kind}/dropout": 0.0, "data/head_dropout": 0.0}
    return Training(assignment(folder, params=params), the_host())


def loss_and_slope(training):
    """The loss of the first batch, and the length of its gradient."""
    batch = training.train.batch(next(training.batches), training.device)
    torch.manual_seed(0)
    mixed = training.model.train()(batch.tokens_BL, batch.keep_BL)
    loss = training.task.loss(mixed.out, batch.targets, training.prepared) + sum(mixed.losses.values())
    loss.backward()
    slopes = [each.grad.norm() for each in training.model.parameters() if each.grad is not None]
    return loss.item(), torch.stack(slopes).norm().item()


def test_on_a_cpu_attention_stays_in_float32(folder):
    training = training_with(folder, "multi_head")
    autocast(training.model, "cpu", torch.bfloat16)
    with AttentionTypes() as noted:
        loss_and_slope(training)
    assert len(noted.seen) >= 2  # forward and backward
    assert set(noted.seen) == {torch.float32}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_computes_in_it_what_it_does_without(folder, name):
    try:
        plain, mixed = training_with(folder, name), training_with(folder, name)
    except Refused as refused:  # what attends across alone
        pytest.skip(str(refused))
    autocast(mixed.model, "cpu", torch.bfloat16)
    loss, slope = loss_and_slope(mixed)
    expected, expected_slope = loss_and_slope(plain)
    assert loss == pytest.approx(expected, rel=0.05, abs=0.02)
    assert slope == pytest.approx(expected_slope, rel=0.25)


# -- float16 -----------------------------------------------------------------------------------------------------------


class Half:
    """A map in float16 with a loss so small that its gradients vanish there."""

    def __init__(self, *, scaled):
        torch.manual_seed(0)
        self.model, self.x = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)), torch.randn(4, 8)
        self.technique = Scaled(self.model) if scaled else Applied()
        autocast(self.model, "cpu", torch.float16)

    def gradients(self, factor):
        self.model.zero_grad()
        (self.technique.scale() * factor * self.model.train()(self.x).square().mean()).backward()
        self.technique.after_backward(None)
        return [each.grad for each in self.model.parameters()]


def test_small_gradients_do_not_vanish_in_float16():
    expected = [1e-8 * each for each in Half(scaled=True).gradients(1.0)]
    for found, each in zip(Half(scaled=True).gradients(1e-8), expected, strict=True):
        torch.testing.assert_close(found, each, rtol=0.05, atol=1e-11)
    assert any((each == 0.0).all() for each in Half(scaled=False).gradients(1e-8)), "which is what the scale is for"


@pytest.mark.parametrize("factor", [1e-8, 1.0])
def test_gradients_that_a_technique_asks_for_do_not_vanish_either(factor):
    """Nor do they come out larger than they are."""
    half = Half(scaled=True)
    step = OneStep(SimpleNamespace(techniques={"scaled": half.technique}), None)
    weights = [*half.model.parameters(), torch.nn.Parameter(torch.ones(1))]
    *found, unused = step.gradients(factor * half.model.train()(half.x).square().mean(), weights)
    assert unused is None
    for each, expected in zip(found, Half(scaled=True).gradients(1.0), strict=True):
        torch.testing.assert_close(each, factor * expected, rtol=0.05, atol=1e-3 * factor)


def test_a_step_that_overflows_moves_nothing_and_the_next_is_scaled_less():
    half = Half(scaled=True)
    assert half.gradients(1e6) == [None] * 4
    assert half.technique.state_dict() == {"factor": FIRST_SCALE / 2, "steps": 0}
    while half.gradients(1e4)[0] is None:
        pass
    assert half.technique.scale() < FIRST_SCALE / 2
    assert half.technique.steps == 1


def test_what_overflows_whatever_the_scale_is_left_to_diverge():
    half = Half(scaled=True)
    half.technique.factor.fill_(1.0)
    assert not all(each.isfinite().all() for each in half.gradients(1e30))
    assert half.technique.scale() == 1.0


def test_what_was_trained_where_nothing_is_scaled_goes_on_with_the_first_scale():
    technique = Half(scaled=True).technique
    technique.load_state_dict(Applied().state_dict())
    assert technique.scale() == FIRST_SCALE
    assert technique.steps == 0


def test_after_many_steps_without_an_overflow_the_scale_doubles():
    half = Half(scaled=True)
    half.technique.steps += STEPS_TO_DOUBLE - 1
    half.gradients(1.0)
    assert half.technique.scale() == 2 * FIRST_SCALE


def scaled_training(folder, monkeypatch, factor, **params):
    """A training in float32 whose gradients are scaled."""
    monkeypatch.setattr(mixed_precision, "half_floats", lambda device: torch.float16)
    monkeypatch.setattr(mixed_precision, "autocast", lambda *_: None)
    params |= {"technique/mixed_precision/use": True, "technique/awp/start": 0.0}
    training = Training(assignment(folder, params=params, number=1), the_host())
    training.techniques["mixed_precision"].factor.fill_(factor)
    return training


@pytest.mark.parametrize("other", ["vat", "r_drop", "fgm", "awp", "label_smoothing", "denoising", "mixup"])
def test_what_other_techniques_make_of_the_loss_weighs_the_same_at_any_scale(folder, other, monkeypatch):
    """In float32, where nothing else changes."""
    params = {f"technique/{other}/use": True, "training/clip": 10.0}
    learned = []
    for factor in (1.0, 1024.0):
        training = scaled_training(folder, monkeypatch, factor, **params)
        for _ in range(3):
            take_step(training, *training.draw())
        learned.append(torch.cat([each.detach().flatten() for each in training.model.parameters()]))
    torch.testing.assert_close(*learned, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("other", ["vat", "fgm", "awp"])
def test_a_step_that_overflows_while_others_look_for_the_worst_moves_nothing_and_has_a_finite_loss(
    folder, other, monkeypatch
):
    training = scaled_training(folder, monkeypatch, torch.inf, **{f"technique/{other}/use": True})
    before = [each.detach().clone() for each in training.model.parameters()]
    assert take_step(training, *training.draw()).isfinite()
    assert all(torch.equal(*each) for each in zip(training.model.parameters(), before, strict=True))


@pytest.mark.parametrize("name", ["a_name_before", "z_name_after"])
def test_gradients_are_divided_after_all_others_added_to_them_whatever_their_names(folder, name, monkeypatch):
    class Again(Applied):
        def after_backward(self, step):
            step.backward(step.loss(step.outputs()))

    learned = []
    for factor in (1.0, 1024.0):
        training = scaled_training(folder, monkeypatch, factor, **{"training/clip": 10.0})
        training.techniques = dict(sorted({**training.techniques, name: Again()}.items()))
        take_step(training, *training.draw())
        learned.append(torch.cat([each.grad.flatten() for each in training.model.parameters()]))
    torch.testing.assert_close(*learned, rtol=1e-4, atol=1e-6)
