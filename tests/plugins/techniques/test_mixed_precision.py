"""Mixed precision is close to float32 for every variant, is for training alone, and rests where it does not pay."""

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
from deepmine_plugins.techniques import mixed_precision
from deepmine_plugins.techniques.mixed_precision import AttentionInFloat32, MixedPrecision, autocast, pays

VARIANTS = sorted(the_host().offered("attention"))


class TestMixedPrecision(TechniquePromises):
    technique = MixedPrecision


class TestWhereItPays(TechniquePromises):
    technique = MixedPrecision

    @pytest.fixture(autouse=True)
    def paying(self, monkeypatch):
        monkeypatch.setattr(mixed_precision, "pays", lambda device: True)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({}, False), ({"avx512_f": True}, False), ({"avx512_bf16": True}, True), ({"amx_tile": True}, True)],
)
def test_on_a_cpu_it_pays_where_it_multiplies_bfloat16(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert pays("cpu") == expected


@pytest.mark.parametrize("native", [False, True])
def test_on_a_gpu_it_pays_where_bfloat16_is_not_emulated(monkeypatch, native):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native and not including_emulation)
    assert pays("cuda") == native


def test_elsewhere_nothing_is_changed(monkeypatch):
    assert not pays("mps")
    monkeypatch.setattr(mixed_precision, "pays", lambda device: False)
    assert Trial(MixedPrecision()).train(range(STEPS)) == Trial(Plain()).train(range(STEPS))


class Plain:
    """Changes nothing."""

    def build(self, facts):
        return Applied()


def test_training_computes_in_bfloat16_and_judging_in_float32():
    seen = []
    model = Trial(Plain()).model
    model.to_classes.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    autocast(model, "cpu")
    batch = batch_of(0)
    for training in (True, False):
        assert model.train(training)(batch.tokens_BL, batch.keep_BL).dtype == torch.float32
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
    autocast(model, "cpu")
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
    autocast(training.model, "cpu")
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
    autocast(mixed.model, "cpu")
    loss, slope = loss_and_slope(mixed)
    expected, expected_slope = loss_and_slope(plain)
    assert loss == pytest.approx(expected, rel=0.05, abs=0.02)
    assert slope == pytest.approx(expected_slope, rel=0.25)
