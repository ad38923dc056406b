"""Variants that carry a state from token to token, or from segment to segment, equal their papers' recurrences, written
as plain loops over single tokens."""

import math
from dataclasses import replace

import oracles
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from deepmine_auto import START, AttentionShape, Mask
from deepmine_auto.testing.attention import AttentionPromises
from deepmine_plugins.attention import gated_delta, gated_linear, mamba2
from deepmine_plugins.attention.forgetting import Forgetting
from deepmine_plugins.attention.gated_delta import GatedDelta
from deepmine_plugins.attention.gated_linear import GatedLinear
from deepmine_plugins.attention.latent_kv import LatentKV
from deepmine_plugins.attention.mamba2 import Mamba2
from deepmine_plugins.attention.multi_head import MultiHead
from deepmine_plugins.attention.retention import Retention
from deepmine_plugins.attention.transformer_xl import TransformerXL

SHAPE = AttentionShape(dim=8, heads=2, kv_heads=2, layer=3, mode="causal")
CAUSAL = Mask(causal=True)


class TestRetention(AttentionPromises):
    variant = Retention


class TestGatedLinear(AttentionPromises):
    variant = GatedLinear


class TestGatedDelta(AttentionPromises):
    variant = GatedDelta


class TestForgetting(AttentionPromises):
    variant = Forgetting


class TestLatentKV(AttentionPromises):
    variant = LatentKV


class TestMamba2(AttentionPromises):
    variant = Mamba2


class TestTransformerXL(AttentionPromises):
    variant = TransformerXL


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def built(variant, shape: AttentionShape = SHAPE):
    """The module with parameters moved from their start, since one that is zero would hide what it does."""
    torch.manual_seed(0)
    module = variant.build(shape).double().eval()
    with torch.no_grad():
        for each in module.parameters():
            each.add_(0.1 * torch.randn_like(each))
    return module


def heads(x_BLD: Tensor, count: int = 2) -> Tensor:
    """(1, L, D) to (H, L, K)."""
    return x_BLD[0].unflatten(-1, (count, -1)).transpose(0, 1)


def whole(module, x_BLD: Tensor, mask: Mask = CAUSAL) -> Tensor:
    return module(x_BLD, mask)[0].out


MIXERS = (GatedLinear(), GatedDelta(), Forgetting(), LatentKV(), Mamba2(state=16), TransformerXL(segment=32))
mixers = pytest.mark.parametrize("variant", MIXERS, ids=lambda each: each.name)
lengths = pytest.mark.parametrize("length", [1, 7, 64, 150])


@mixers
@torch.no_grad()
def test_padding_on_the_left_is_as_if_it_were_not_there(variant):
    module, x_BLD = built(variant), numbers(1, 24, 8)
    padding = torch.arange(24)[None] >= 9
    padded = whole(module, x_BLD, Mask(causal=True, padding=padding))
    assert_close(padded[:, 9:], whole(module, x_BLD[:, 9:]))


@mixers
@torch.no_grad()
def test_padding_in_the_past_stays_out_of_the_state(variant):
    module, x_BLD = built(variant), numbers(1, 90, 8)
    padding = torch.rand(1, 90, generator=torch.Generator().manual_seed(0)) < 0.6
    padding[:, -1] = True
    state, found = START, []
    for start, end in ((0, 3), (3, 70), (70, 71), (71, 90)):
        mask = Mask(causal=True, padding=padding[:, :end])
        mixed, state = module(x_BLD[:, start:end], mask, state)
        found.append(mixed.out)
    expected = whole(module, x_BLD, Mask(causal=True, padding=padding))
    assert_close(torch.cat(found, 1)[padding], expected[padding])


@pytest.mark.parametrize(
    "variant", [GatedLinear(), GatedDelta(convolution=0), Forgetting(), LatentKV()], ids=lambda each: each.name
)
@torch.no_grad()
def test_padding_in_between_is_as_if_it_were_not_there(variant):
    module, x_BLD = built(variant), numbers(1, 90, 8)
    padding = torch.rand(1, 90, generator=torch.Generator().manual_seed(0)) < 0.6
    padded = whole(module, x_BLD, Mask(causal=True, padding=padding))
    assert_close(padded[padding], whole(module, x_BLD[padding][None])[0])


@pytest.mark.parametrize("variant", [GatedLinear(), GatedDelta(), Mamba2()], ids=lambda each: each.name)
@torch.no_grad()
def test_padding_at_the_end_changes_no_memory(variant):
    module, x_BLD = built(variant), numbers(1, 12, 8)
    _, short = module(x_BLD[:, :9], CAUSAL, START)
    _, padded = module(x_BLD, Mask(causal=True, padding=torch.arange(12)[None] < 9), START)
    assert_close(padded[-1], short[-1])


@mixers
@torch.no_grad()
def test_without_a_state_none_is_kept(variant):
    assert built(variant)(numbers(1, 3, 8), CAUSAL)[1] is None


@mixers
@torch.no_grad()
def test_a_state_of_a_long_text_is_as_small_as_declared(variant):
    """In numbers, after 200 tokens of 8 dims in 2 heads: matrices of heads; cached tokens; or two segments."""
    _, state = built(variant)(numbers(1, 200, 8), CAUSAL, START)
    expected = {
        "gated_linear": 2 * 2 * 4,
        "gated_delta": 2 * 4 * 4 + 3 * 24,
        "forgetting": 2 * 200 * 2 * 5,
        "latent_kv": 200 * 2,
        "mamba2": 2 * 16 * 8 + 3 * (16 + 2 * 16),
        "transformer_xl": (200 - 5 * 32) * 8,
    }
    assert sum(each.numel() for each in state) == expected[variant.name]


# -- retention -------------------------------------------------------------------------------------------------------


def retained(q_LK: Tensor, k_SK: Tensor, v_SK: Tensor, decay: float, real: list[bool]) -> Tensor:
    """The paper's recurrence, S = decay S + k v, with its three normalisers."""
    lead, dim = len(k_SK) - len(q_LK), k_SK.shape[1]
    memory, total, faded, rows = torch.zeros(dim, v_SK.shape[1]).double(), torch.zeros(dim).double(), 0.0, []
    for j in range(len(k_SK)):
        memory, total, faded = decay * memory, decay * total, decay * faded
        if real[j]:
            memory, total, faded = memory + torch.outer(k_SK[j], v_SK[j]), total + k_SK[j], faded + 1.0
        if j >= lead:
            scale = 1.0 / math.sqrt(dim * faded) if faded else 0.0
            rows.append(q_LK[j - lead] @ memory * scale / max(1.0, abs(float(q_LK[j - lead] @ total) * scale)))
    return torch.stack(rows)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("length", [1, 7, 64, 65, 150])
def test_retention_by_chunks_equals_its_recurrence(length, weights, padded):
    q, k, v = numbers(1, 2, length, 4), *numbers(2, 1, 2, 150, 4, seed=1)
    real = (torch.arange(150) % 3 > 0) if padded else torch.ones(150, dtype=torch.bool)
    mask = Mask(causal=True, padding=real[None] if padded else None)
    found = Retention(span=8).build(SHAPE)(q, k, v, mask, weights=weights).out
    decays = (1.0 - 1.0 / 8.0, 1.0 - 1.0 / 16.0)
    expected = [retained(q[0, h], k[0, h], v[0, h], decays[h], real.tolist()) for h in range(2)]
    assert_close(found[0], torch.stack(expected))


def test_retention_of_the_papers_span_has_the_papers_decays():
    decays = [math.exp(each) for each in Retention(span=32).build(replace(SHAPE, heads=3)).log_decays]
    assert decays == pytest.approx([1.0 - 2.0 ** (-5 - head) for head in range(3)], abs=1e-15)


def test_retention_without_decay_is_linear_attention_but_for_its_normalisers():
    module = Retention().build(SHAPE)
    module.log_decays = [0.0, 0.0]
    q, k, v = 0.01 * numbers(1, 2, 150, 4), *numbers(2, 1, 2, 150, 4, seed=1)  # such small sums are not divided
    linear = (q @ k.transpose(-1, -2) / 2.0).tril() @ v
    found = module(q, k, v, CAUSAL).out * torch.arange(1, 151).double().sqrt()[:, None]
    assert_close(found, linear)


def test_retention_that_forgets_all_at_once_keeps_each_token_itself():
    module, (q, k, v) = Retention().build(SHAPE), numbers(3, 1, 2, 90, 4)
    module.log_decays = [-50.0, -50.0]
    own = (q * k).sum(-1, keepdim=True) / 2.0
    for weights in (False, True):
        found = module(q, k, v, CAUSAL, weights=weights).out
        assert_close(found, own / own.abs().clamp_min(1.0) * v)


def test_a_row_of_retention_never_sums_to_more_than_one():
    q, k, v = numbers(3, 1, 2, 40, 4)
    weights = Retention().build(SHAPE)(q, k, v, CAUSAL, weights=True).weights
    sums = weights.sum(-1).abs()
    assert sums.max() == pytest.approx(1.0)
    assert (sums[:, :, 1:] < 0.999).any()


# -- gated linear ----------------------------------------------------------------------------------------------------


def gated_by_loops(q: Tensor, k: Tensor, v: Tensor, forget: Tensor) -> Tensor:
    memory_KV, rows = torch.zeros(k.shape[1], v.shape[1]).double(), []
    for at in range(len(q)):
        memory_KV = torch.exp(forget[at])[:, None] * memory_KV + torch.outer(k[at], v[at])
        rows.append(q[at] @ memory_KV)
    return torch.stack(rows)


@lengths
@pytest.mark.parametrize("strength", [0.0, 0.1, 30.0])
def test_gated_sums_by_chunks_equal_their_recurrence(length, strength):
    q, k, v, forget = numbers(4, 1, 2, length, 4)
    forget = -strength * forget.abs()
    past = torch.zeros(1, 2, 4, 4).double()
    found, _ = gated_linear.gated_sums(q, k, v, forget, past)
    expected = [gated_by_loops(*(each[0, h] for each in (q, k, v, forget))) for h in range(2)]
    assert_close(found[0], torch.stack(expected))


def test_gates_that_forget_everything_at_once_stay_exact_in_float32():
    q, k, v = numbers(3, 1, 1, 150, 4)
    forget = torch.where(torch.arange(150)[:, None] % 40 == 7, -100.0, -0.01).expand(1, 1, 150, 4)
    inputs = (*(x.float().requires_grad_() for x in (q, k, v)), forget.clone().requires_grad_())
    found, last = gated_linear.gated_sums(*inputs, torch.zeros(1, 1, 4, 4))
    assert_close(
        found[0, 0].double(), gated_by_loops(q[0, 0], k[0, 0], v[0, 0], forget[0, 0].double()), rtol=1e-4, atol=1e-4
    )
    gradients = torch.autograd.grad(found.sum() + last.sum(), inputs)
    assert all(each.isfinite().all() for each in gradients)


@torch.no_grad()
def test_sums_of_many_gates_keep_their_digits_in_mixed_precision():
    """Late in a chunk, half floats would lose what lies between neighbours in the sum of all gates before them."""
    forget = torch.full((1, 1, 64, 4), -0.9, dtype=torch.bfloat16)
    q = k = torch.ones(1, 1, 64, 4, dtype=torch.bfloat16)
    v = torch.eye(64, dtype=torch.bfloat16)[None, None]
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = gated_linear.gated_sums(q, k, v, forget, torch.zeros(1, 1, 4, 64))
    neighbours = found[0, 0].diagonal(-1).double()
    assert_close(neighbours, 4.0 * forget[0, 0, 1:, 0].double().exp(), rtol=0.02, atol=0.0)


@lengths
@torch.no_grad()
def test_gated_linear_attention_equals_its_paper(length):
    module, x_BLD = built(GatedLinear(smoothing=8)), numbers(1, length, 8)
    q, k, v = (heads(each) for each in module.to_qkv(x_BLD).split((4, 4, 8), -1))
    forget = heads(torch.log(torch.sigmoid(module.to_forget(x_BLD)) ** (1.0 / 8.0)))
    mixed_HLV = torch.stack([gated_by_loops(q[h], k[h], v[h], forget[h]) for h in range(2)]) / math.sqrt(2.0)
    normal_HLV = module.norm.weight * mixed_HLV / (mixed_HLV.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    gate_BLD = module.to_gate(x_BLD)
    expected = module.to_out(normal_HLV.transpose(0, 1).flatten(1)[None] * gate_BLD * gate_BLD.sigmoid())
    assert_close(whole(module, x_BLD), expected)


@torch.no_grad()
def test_gates_of_one_make_gated_sums_linear_attention():
    q, k, v = numbers(3, 1, 2, 150, 4)
    found, last = gated_linear.gated_sums(q, k, v, torch.zeros_like(k), torch.zeros(1, 2, 4, 4).double())
    assert_close(found, (q @ k.transpose(-1, -2)).tril() @ v)
    assert_close(last, k.transpose(-1, -2) @ v)


# -- gated delta -----------------------------------------------------------------------------------------------------


def delta_by_loops(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, decay: Tensor, memory: Tensor
) -> tuple[Tensor, Tensor]:
    rows = []
    for at in range(len(q)):
        memory = math.exp(decay[at]) * memory
        memory = memory + float(beta[at]) * torch.outer(k[at], v[at] - k[at] @ memory)
        rows.append(q[at] @ memory)
    return torch.stack(rows), memory


def delta_inputs(length: int) -> list[Tensor]:
    q, k, v = numbers(3, 1, 2, length, 4)
    beta, decay = numbers(2, 1, 2, length, 1, seed=1)
    return [q, F.normalize(k, dim=-1), v, 2.0 * beta.sigmoid(), -decay.square()]


@lengths
def test_the_delta_rule_by_chunks_equals_its_recurrence(length):
    inputs, memory = delta_inputs(length), numbers(1, 2, 4, 4, seed=2)
    found, last = gated_delta.delta_rule(*inputs, memory)
    for h in range(2):
        q, k, v, beta, decay = (each[0, h] for each in inputs)
        out_LK, end_KK = delta_by_loops(q, k, v, beta, decay, memory[0, h])
        assert_close(found[0, h], out_LK)
        assert_close(last[0, h], end_KK)


@lengths
@pytest.mark.parametrize("theirs", ["torch_chunk_gated_delta_rule", "torch_recurrent_gated_delta_rule"])
def test_the_delta_rule_equals_that_of_transformers(length, theirs):
    qwen = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")
    q, k, v, beta, decay = (each.float() for each in delta_inputs(length))
    memory = torch.zeros(1, 2, 4, 4)
    found, last = gated_delta.delta_rule(q / 2.0, k, v, beta, decay, memory)  # theirs divides by the root of K
    turned = [each.transpose(1, 2) for each in (q, k, v)]
    gates = [each[..., 0].transpose(1, 2) for each in (decay, beta)]
    out, end = getattr(qwen, theirs)(*turned, *gates, output_final_state=True)
    assert_close(found, out.transpose(1, 2), rtol=1e-4, atol=1e-4)
    assert_close(last, end, rtol=1e-4, atol=1e-4)


def test_a_beta_of_zero_keeps_the_memory():
    q, k, v, _, decay = delta_inputs(100)
    memory, zeros = numbers(1, 2, 4, 4), torch.zeros_like(decay)
    found, last = gated_delta.delta_rule(q, k, v, zeros, zeros, memory)
    assert_close(last, memory)
    assert_close(found, q @ memory)


def test_a_second_write_under_a_key_replaces_the_first():
    k = torch.zeros(1, 1, 2, 4).double()
    k[..., 1] = 1.0
    v, ones = numbers(1, 1, 2, 4), torch.ones(1, 1, 2, 1).double()
    found, _ = gated_delta.delta_rule(k, k, v, ones, 0.0 * ones, torch.zeros(1, 1, 4, 4).double())
    assert_close(found, v)


def test_decays_that_forget_everything_at_once_stay_finite_in_float32():
    q, k, v, beta, _ = (each.float() for each in delta_inputs(100))
    decay = torch.full_like(beta, -300.0).requires_grad_()
    found, _ = gated_delta.delta_rule(q, k, v, beta, decay, torch.zeros(1, 2, 4, 4))
    (gradient,) = torch.autograd.grad(found.sum(), decay)
    assert_close(found, (q * k).sum(-1, keepdim=True) * beta * v, rtol=1e-4, atol=1e-5)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("convolution", [0, 4])
@pytest.mark.parametrize("length", [2, 70])
@torch.no_grad()
def test_gated_delta_equals_its_paper(convolution, length):
    module, x_BLD = built(GatedDelta(convolution=convolution, beta=2.0)), numbers(1, length, 8)
    qkv_LE = module.to_qkv(x_BLD)[0]
    if convolution:
        kernel_ET, zeros = module.recent.convolution.weight[:, 0], torch.zeros(24).double()
        past = [zeros, zeros, zeros, *qkv_LE]
        qkv_LE = torch.stack([sum(kernel_ET[:, t] * past[at + t] for t in range(4)) for at in range(length)])
    q, k, v = (heads(each[None]) for each in (qkv_LE * qkv_LE.sigmoid()).split(8, -1))
    q, k = (each / (each.square().sum(-1, keepdim=True) + 1e-6).sqrt() for each in (q, k))
    beta_LH = 2.0 * torch.sigmoid(module.to_beta(x_BLD)[0])
    step_LH = torch.log1p(torch.exp(module.decay.to_step(x_BLD)[0] + module.decay.step_H))
    decay_LH = -torch.exp(module.decay.log_rate_H) * step_LH
    empty = torch.zeros(4, 4).double()
    rows = [delta_by_loops(q[h] / 2.0, k[h], v[h], beta_LH[:, h], decay_LH[:, h], empty)[0] for h in range(2)]
    mixed_HLK = torch.stack(rows)
    normal_HLK = module.norm.weight * mixed_HLK / (mixed_HLK.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    gate_BLD = module.to_gate(x_BLD)
    expected = module.to_out(normal_HLK.transpose(0, 1).flatten(1)[None] * gate_BLD * gate_BLD.sigmoid())
    assert_close(whole(module, x_BLD), expected)


def test_memories_of_a_new_layer_last_from_tokens_to_thousands():
    torch.manual_seed(0)
    decay_H = GatedDelta().build(AttentionShape(dim=256, heads=256, kv_heads=256)).decay(torch.zeros(1, 1, 256))
    assert -2.0 < decay_H.min() < -0.5
    assert -0.01 < decay_H.max() < 0.0


# -- Mamba-2 ---------------------------------------------------------------------------------------------------------


def scan_inputs(length: int) -> list[Tensor]:
    b, c = numbers(2, 1, 1, length, 3)
    return [c, b, numbers(1, 2, length, 4), -numbers(1, 2, length, 1, seed=1).square()]


@lengths
def test_a_scan_by_chunks_equals_its_recurrence(length):
    inputs, past = scan_inputs(length), numbers(1, 2, 3, 4, seed=2)
    found, last = mamba2.scanned(*inputs, past)
    c, b, x, decay = (each.expand(1, 2, -1, -1)[0] for each in inputs)
    for h in range(2):
        state_NP, rows = past[0, h], []
        for at in range(length):
            state_NP = decay[h, at].exp() * state_NP + torch.outer(b[h, at], x[h, at])
            rows.append(c[h, at] @ state_NP)
        assert_close(found[0, h], torch.stack(rows))
        assert_close(last[0, h], state_NP)


def test_a_scan_without_decay_is_a_cumulative_sum():
    c, b, x, decay = scan_inputs(150)
    found, _ = mamba2.scanned(c, b, x, 0.0 * decay, torch.zeros(1, 2, 3, 4).double())
    sums = (b[..., None] * x[..., None, :]).cumsum(2)
    assert_close(found, (c[..., None, :] @ sums)[..., 0, :])


def test_a_scan_that_forgets_everything_at_once_stays_finite_in_float32():
    c, b, x, decay = (each.float() for each in scan_inputs(100))
    decay = torch.full_like(decay, -300.0).requires_grad_()
    found, _ = mamba2.scanned(c, b, x, decay, torch.zeros(1, 2, 3, 4))
    (gradient,) = torch.autograd.grad(found.sum(), decay)
    assert_close(found, (c * b).sum(-1, keepdim=True) * x)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("length", [1, 3, 100])
@torch.no_grad()
def test_mamba2_equals_that_of_transformers(length):
    mamba = pytest.importorskip("transformers.models.mamba2")
    config = mamba.Mamba2Config(
        hidden_size=8, num_heads=2, head_dim=8, state_size=16, expand=2, n_groups=1, conv_kernel=4, chunk_size=64,
        num_hidden_layers=1,
    )  # fmt: skip
    theirs = mamba.modeling_mamba2.Mamba2Mixer(config, 0).eval()
    ours, x_BLD = built(Mamba2(state=16)).float(), numbers(1, length, 8).float()
    pairs = {
        "in_proj.weight": "to_parts.weight", "conv1d.weight": "convolution.weight", "conv1d.bias": "convolution.bias",
        "A_log": "log_rate_H", "dt_bias": "step_H", "D": "skip_H", "norm.weight": "norm.weight",
        "out_proj.weight": "to_out.weight",
    }  # fmt: skip
    mine = ours.state_dict()
    theirs.load_state_dict({name: mine[name_of_ours] for name, name_of_ours in pairs.items()})
    assert len(mine) == len(pairs)
    assert_close(whole(ours, x_BLD), theirs(x_BLD), rtol=1e-4, atol=1e-5)


# -- forgetting ------------------------------------------------------------------------------------------------------


def forgetting_by_loops(module, x_BLD: Tensor, mask: Mask) -> Tensor:
    q, k, v = (heads(each) for each in module.to_qkv(x_BLD).chunk(3, -1))
    gate_LH = torch.sigmoid(module.to_gate(x_BLD))[0]
    real = [True] * len(gate_LH) if mask.padding is None else mask.padding[0].tolist()
    rows_HLK = torch.zeros_like(q)
    for h in range(2):
        for i in range(len(gate_LH)):
            seen = [j for j in range(i + 1) if real[j]]
            lasting = [math.prod(float(gate_LH[n, h]) for n in range(j + 1, i + 1) if real[n]) for j in seen]
            powers = [math.exp(oracles.dot(q[h, i], k[h, j])) * share for j, share in zip(seen, lasting, strict=True)]
            for j, power in zip(seen, powers, strict=True):
                rows_HLK[h, i] += power / sum(powers) * v[h, j]
    return module.to_out(rows_HLK.transpose(0, 1).flatten(1)[None])


@pytest.mark.parametrize("padded", [False, True])
@torch.no_grad()
def test_forgetting_attention_equals_products_of_its_gates(padded):
    module, x_BLD = built(Forgetting(start=0.5)), numbers(1, 20, 8)
    mask = Mask(causal=True, padding=(torch.arange(20) % 4 > 0)[None] if padded else None)
    assert_close(whole(module, x_BLD, mask), forgetting_by_loops(module, x_BLD, mask))


@torch.no_grad()
def test_gates_of_one_make_forgetting_causal_softmax():
    module, x_BLD = built(Forgetting()), numbers(1, 20, 8)
    torch.nn.init.zeros_(module.to_gate.weight)
    torch.nn.init.constant_(module.to_gate.bias, 800.0)
    q, k, v = (heads(each)[None] for each in module.to_qkv(x_BLD).chunk(3, -1))
    softmax = MultiHead().build(SHAPE)(q, k, v, CAUSAL).out
    assert_close(whole(module, x_BLD), module.to_out(softmax.transpose(1, 2).flatten(2)))


@torch.no_grad()
def test_a_new_forgetting_layer_weighs_distance_by_its_first_gate():
    module = Forgetting(start=1.0).build(SHAPE).double()
    for each in (module.to_qkv, module.to_gate):
        torch.nn.init.zeros_(each.weight)
    row = module(numbers(1, 5, 8), CAUSAL, weights=True)[0].weights[0, 0, -1]
    gate = 1.0 / (1.0 + math.exp(-1.0))
    assert_close(row[:-1] / row[1:], torch.full((4,), gate).double())


@pytest.mark.parametrize("weights", [False, True])
@torch.no_grad()
def test_gates_of_a_long_text_are_summed_with_all_digits_in_mixed_precision(weights):
    module, x_BLD = built(Forgetting(start=0.0)).float(), numbers(1, 500, 8).float()
    expected = whole(module, x_BLD)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(x_BLD, CAUSAL, weights=weights)[0].out
    assert_close(found.float(), expected, rtol=0.0, atol=0.05)


@torch.no_grad()
def test_forgetting_shares_keys_and_gates_among_queries():
    module = built(Forgetting(), replace(SHAPE, kv_heads=1))
    weights = module(numbers(1, 6, 8), CAUSAL, weights=True)[0].weights
    assert module.to_gate.out_features == 1
    assert weights.shape == (1, 2, 6, 6)


# -- latent ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
@torch.no_grad()
def test_latent_attention_equals_softmax_of_what_it_expands(causal):
    module, x_BLD = built(LatentKV(share=0.5)), numbers(1, 9, 8)
    latent_LR = module.to_latent(x_BLD)[0]
    latent_LR = module.norm.weight * latent_LR / (latent_LR.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    assert latent_LR.shape == (9, 4)
    q = heads(module.to_q(x_BLD))
    k, v = (heads((latent_LR @ each.T)[None]) for each in module.to_kv.weight.split(8))
    mixed = [oracles.attend(q[h], k[h], v[h], lambda i, j: not causal or j <= i) for h in range(2)]
    expected = module.to_out(torch.cat(mixed, 1)[None])
    assert_close(whole(module, x_BLD, Mask(causal=causal)), expected)


@pytest.mark.parametrize("weights", [False, True])
@torch.no_grad()
def test_the_absorbed_form_equals_the_expanded_one(weights):
    module = built(LatentKV(share=0.5))
    q, latent = numbers(1, 2, 3, 4), numbers(1, 9, 4)
    for mask in (Mask(), Mask(causal=True), Mask(padding=torch.arange(9)[None] > 4)):
        absorbed, expanded = (form(q, latent, mask, weights) for form in (module._absorbed, module._expanded))
        assert_close(absorbed.out, expanded.out)
        assert (absorbed.weights is not None) == weights
        if weights:
            assert_close(absorbed.weights, expanded.weights)


@torch.no_grad()
def test_a_latent_of_full_rank_can_be_any_multi_head_attention():
    """Of inputs of root mean square one, which is what a layer reads behind its norm."""
    module = LatentKV(share=1.0).build(SHAPE).double()
    torch.nn.init.eye_(module.to_latent.weight)
    x_BLD = F.rms_norm(numbers(1, 9, 8), (8,), eps=1e-6)
    q, k, v = (heads(each)[None] for each in (module.to_q(x_BLD), *module.to_kv(x_BLD).chunk(2, -1)))
    multi_head = MultiHead().build(SHAPE)(q, k, v, Mask()).out
    expected = module.to_out(multi_head.transpose(1, 2).flatten(2))
    assert_close(whole(module, x_BLD, Mask()), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_latent_attention_equals_deepseeks_without_rotation():
    deepseek = pytest.importorskip("transformers.models.deepseek_v3")
    torch.manual_seed(0)
    config = deepseek.DeepseekV3Config(
        hidden_size=16, num_attention_heads=4, num_key_value_heads=4, q_lora_rank=None, kv_lora_rank=8,
        qk_nope_head_dim=4, qk_rope_head_dim=2, v_head_dim=4, attn_implementation="eager",
    )  # fmt: skip
    theirs = deepseek.modeling_deepseek_v3.DeepseekV3Attention(config, 0).eval()
    theirs.scaling = 0.5  # theirs counts the rotated dims, which are zero here
    ours = LatentKV(share=0.5).build(replace(SHAPE, dim=16, heads=4))
    theirs.q_proj.weight.copy_(F.pad(ours.to_q.weight.view(4, 4, 16), (0, 0, 0, 2)).flatten(0, 1))
    theirs.kv_a_proj_with_mqa.weight.copy_(F.pad(ours.to_latent.weight, (0, 0, 0, 2)))
    theirs.kv_b_proj.weight.copy_(ours.to_kv.weight.view(2, 4, 4, 8).transpose(0, 1).flatten(0, 2))
    theirs.o_proj.weight.copy_(ours.to_out.weight)
    torch.nn.init.zeros_(ours.to_out.bias)
    x_BLD, mask = numbers(1, 9, 16).float(), torch.full((9, 9), -torch.inf).triu(1)[None, None]
    still = (torch.ones(1, 9, 2), torch.zeros(1, 9, 2))
    expected = theirs(x_BLD, position_embeddings=still, attention_mask=mask)[0]
    assert_close(whole(ours, x_BLD), expected, rtol=1e-4, atol=1e-5)


# -- Transformer-XL --------------------------------------------------------------------------------------------------


def recurrent_by_loops(module, x_BLD: Tensor, segment: int, real: list[bool]) -> Tensor:
    """Each query with its own segment and, as constants, the one before."""
    x_LD, relative, rows = x_BLD[0], module.relative, []
    to_k, to_v = module.to_kv.weight.split(8)
    for i in range(len(x_LD)):
        start = i // segment * segment
        seen = {
            j: x_LD[j] if j >= start else x_LD[j].detach() for j in range(max(0, start - segment), i + 1) if real[j]
        }
        mixed_HK = []
        for h in range(2):
            own = slice(4 * h, 4 * h + 4)
            q_K, to_r = module.to_q.weight[own] @ x_LD[i], relative.to_r.weight[own]
            content = [(q_K + relative.u_HK[h]) @ to_k[own] @ x_D for x_D in seen.values()]
            place = [(q_K + relative.v_HK[h]) @ to_r @ sinusoid(i - j) for j in seen]
            powers = [torch.exp((a + b) / 2.0) for a, b in zip(content, place, strict=True)]
            values = [to_v[own] @ x_D for x_D in seen.values()]
            shares = [power / sum(powers) * v_K for power, v_K in zip(powers, values, strict=True)]
            mixed_HK.append(sum(shares, torch.zeros(4).double()))
        rows.append(module.to_out(torch.cat(mixed_HK)))
    return torch.stack(rows)[None]


def sinusoid(distance: int) -> Tensor:
    angles = [distance / 10000.0 ** (2 * pair / 8) for pair in range(4)]
    return torch.tensor([*map(math.sin, angles), *map(math.cos, angles)]).double()


def shortened(segment: int):
    """A layer with segments too short to be worth searching, so that loops are quick."""
    return built(replace(TransformerXL(), segment=segment))


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("length", [3, 4, 8, 14])
def test_segments_equal_full_context_with_stopped_gradients(length, padded):
    module, x_BLD = shortened(4), numbers(1, length, 8).requires_grad_()
    real = torch.arange(length) % 5 != 1 if padded else torch.ones(length, dtype=torch.bool)
    found = whole(module, x_BLD, Mask(causal=True, padding=real[None] if padded else None))
    expected = recurrent_by_loops(module, x_BLD, 4, real.tolist())
    assert_close(found, expected)
    towards, learned = numbers(1, length, 8, seed=1), (x_BLD, *module.parameters())
    ours, theirs = (torch.autograd.grad((out * towards).sum(), learned) for out in (found, expected))
    assert_close(ours, theirs)


def test_no_gradient_flows_into_memory():
    module, x_BLD = shortened(4), numbers(1, 12, 8).requires_grad_()
    (gradient,) = torch.autograd.grad(whole(module, x_BLD)[:, 8:].sum(), x_BLD)
    assert (gradient[:, :8] == 0.0).all()
    assert (gradient[:, 8:] != 0.0).any()


@torch.no_grad()
def test_memory_reaches_back_one_segment_and_no_further():
    weights = shortened(4)(numbers(1, 12, 8), CAUSAL, weights=True)[0].weights[0, 0]
    assert (weights[8:, :4] == 0.0).all()
    assert (weights[8:, 4:9] > 0.0).all()


@torch.no_grad()
def test_weights_of_segments_are_those_that_were_used():
    module, x_BLD = shortened(4), numbers(1, 14, 8)
    mixed = module(x_BLD, CAUSAL, weights=True)[0]
    v_HLK = heads(module.to_kv(x_BLD)[..., 8:])
    assert_close(mixed.out, module.to_out((mixed.weights[0] @ v_HLK).transpose(0, 1).flatten(1)[None]))


@torch.no_grad()
def test_distances_keep_their_digits_in_half_precision():
    relative = TransformerXL().build(SHAPE).relative
    half, exact = (
        relative._sinusoids(torch.zeros(1, 2, 250, 4, dtype=each)) for each in (torch.bfloat16, torch.float64)
    )
    assert half.dtype == torch.bfloat16
    assert_close(half.double(), exact, rtol=0.0, atol=0.01)


@torch.no_grad()
def test_segment_by_segment_equals_the_whole():
    module, x_BLD = shortened(4), numbers(1, 14, 8)
    state, found = START, []
    for part in x_BLD.split(4, 1):
        mixed, state = module(part, CAUSAL, state)
        found.append(mixed.out)
    assert_close(torch.cat(found, 1), whole(module, x_BLD))
