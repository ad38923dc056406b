"""What changes softmax attention and is no attention of its own: its promises, its paper's formula, its limits."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import oracles
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward
from transformers.models.t5.configuration_t5 import T5Config
from transformers.models.t5.modeling_t5 import T5Attention

from deepmine_auto import (
    AttentionCore,
    AttentionModifier,
    AttentionShape,
    DenseAttention,
    Mask,
    Mixed,
    fused_softmax,
)
from deepmine_auto.admission import contradiction
from deepmine_auto.host import the_host
from deepmine_auto.model.dense import biased
from deepmine_auto.model.guard import Refused
from deepmine_auto.model.multi_head import token_mixer
from deepmine_auto.testing.attention import AttentionPromises
from deepmine_plugins.attention.adaptive_span import AdaptiveSpan
from deepmine_plugins.attention.additive import Additive
from deepmine_plugins.attention.alibi import Alibi
from deepmine_plugins.attention.multi_head import MultiHead
from deepmine_plugins.attention.multiplicative import Multiplicative
from deepmine_plugins.attention.output_gate import OutputGate
from deepmine_plugins.attention.qk_norm import QKNorm
from deepmine_plugins.attention.query_temperature import QueryTemperature
from deepmine_plugins.attention.relative_bias import RelativeBias
from deepmine_plugins.attention.scalable_softmax import ScalableSoftmax
from deepmine_plugins.attention.soft_cap import SoftCap
from deepmine_plugins.attention.talking_heads import TalkingHeads
from deepmine_plugins.attention.tanh_gate import TanhGate

SHAPE = AttentionShape(dim=16, heads=4, kv_heads=4, max_len=64)
PADDING = torch.tensor([[True] * 5 + [False, True], [False] * 7])


class TestAlibi(AttentionPromises):
    variant = Alibi


class TestRelativeBias(AttentionPromises):
    variant = RelativeBias


class TestQKNorm(AttentionPromises):
    variant = QKNorm


class TestScalableSoftmax(AttentionPromises):
    variant = ScalableSoftmax


class TestQueryTemperature(AttentionPromises):
    variant = QueryTemperature


class TestOutputGate(AttentionPromises):
    variant = OutputGate


class TestTanhGate(AttentionPromises):
    variant = TanhGate


class TestSoftCap(AttentionPromises):
    variant = SoftCap


class TestTalkingHeads(AttentionPromises):
    variant = TalkingHeads


class TestAdaptiveSpan(AttentionPromises):
    variant = AdaptiveSpan


# -- tools -----------------------------------------------------------------------------------------------------------


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def inputs(length: int, source: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    return numbers(1, 4, length, 4), numbers(1, 4, source, 4, seed=1), numbers(1, 4, source, 4, seed=2)


def built(variant: AttentionModifier, shape: AttentionShape = SHAPE, moved: float = 0.5) -> nn.Module:
    """Its module, with what it learns moved from where it starts."""
    torch.manual_seed(0)
    module = variant.build(shape).double()
    with torch.no_grad():
        for each in module.parameters():
            each.add_(moved * torch.randn_like(each))
    return module


def attention(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Mask | None = None) -> Tensor:
    """Softmax attention with one modifier, by the fused kernel where it keeps that."""
    mask = mask or Mask()
    q, k = module.on_qk(q, k, mask) if hasattr(module, "on_qk") else (q, k)
    mask = biased(mask, q, k, [module])
    if hasattr(module, "on_score") or hasattr(module, "on_scores"):
        return DenseAttention().mix(q, k, v, mask, [module]).out
    return fused_softmax(q, k, v, mask)


def by_loops(
    v: Tensor, length: int, score: Callable[[int, int, int], float], visible: Callable[[int, int], bool]
) -> Tensor:
    """One row; `score(h, i, j)` is all that the softmax sees."""
    out = torch.zeros(1, v.shape[1], length, v.shape[3], dtype=torch.float64)
    for h in range(v.shape[1]):
        for i in range(length):
            seen = [j for j in range(v.shape[2]) if visible(i, j)]
            for weight, j in zip(oracles.softmax([score(h, i, j) for j in seen]), seen, strict=True):
                out[0, h, i] += weight * v[0, h, j]
    return out


def past(length: int, source: int = 7) -> Callable[[int, int], bool]:
    return lambda i, j: j <= i + source - length


def anything(i: int, j: int) -> bool:
    return True


queries = pytest.mark.parametrize("length", [1, 3, 7])
KEEP_THE_KERNEL = [
    Alibi(heads="half"), RelativeBias(), QKNorm(), ScalableSoftmax(), QueryTemperature(), OutputGate(), TanhGate(),
    AdaptiveSpan(ramp=8),
]  # fmt: skip


@pytest.mark.parametrize("variant", KEEP_THE_KERNEL, ids=lambda each: each.name)
@pytest.mark.parametrize("mask", [
    Mask(), Mask(causal=True), Mask(padding=PADDING), Mask(padding=PADDING, causal=True, window=(2, 0)),
    Mask(bias=numbers(1, 4, 7, 7).masked_fill(numbers(1, 4, 7, 7) < 0.0, -torch.inf)),
], ids=["none", "causal", "padding", "window", "bias"])  # fmt: skip
def test_the_fused_kernel_equals_the_definition_in_outputs_and_gradients(variant, mask):
    layer = token_mixer(MultiHead(), [variant], SHAPE).double()
    x_BLD, found = numbers(2, 7, 16).requires_grad_(), []
    with torch.no_grad():
        for each in layer.modifiers.parameters():
            each.add_(0.1 * torch.randn_like(each))
    for weights in (False, True):
        out = layer(x_BLD, mask, weights=weights)[0].out
        found.append((out, *torch.autograd.grad(out.square().sum(), [x_BLD, *layer.parameters()])))
        assert all(each.isfinite().all() for each in found[-1])
    assert_close(found[0], found[1], rtol=1e-7, atol=1e-9)


# -- ALiBi -----------------------------------------------------------------------------------------------------------


@queries
@pytest.mark.parametrize("causal", [False, True])
def test_alibi_takes_slope_times_distance_off_the_scores(length, causal):
    q, k, v = inputs(length)

    def score(h: int, i: int, j: int) -> float:
        return oracles.dot(q[0, h, i], k[0, h, j]) - 2.0 ** (-2 * (h + 1)) * abs(i + 7 - length - j)

    expected = by_loops(v, length, score, past(length) if causal else anything)
    assert_close(attention(Alibi().build(SHAPE), q, k, v, Mask(causal=causal)), expected)


@pytest.mark.parametrize("heads", [1, 2, 8, 16])
def test_alibi_has_the_slopes_of_bloom(heads):
    shape = AttentionShape(dim=2 * heads, heads=heads, kv_heads=heads)
    q = numbers(1, heads, 6, 2)
    ours = Alibi().build(shape).bias(q, q)[0, :, -1:]
    theirs = build_alibi_tensor(torch.ones(1, 6), heads, torch.float64)
    # BLOOM counts from the first token on, and softmax does not see the difference
    assert_close(ours - ours[..., :1], theirs, rtol=1e-6, atol=1e-6)


def test_half_of_the_heads_may_go_without_a_slope():
    q = numbers(1, 4, 5, 4)
    bias = Alibi(heads="half").build(SHAPE).bias(q, q)
    assert (bias[0, 2:] == 0.0).all()
    assert_close(bias[0, :2, 4, 0], torch.tensor([-4.0 / 16.0, -4.0 / 256.0], dtype=torch.float64))


def test_a_single_head_has_a_slope_even_if_half_of_them_do():
    q = numbers(1, 1, 5, 4)
    bias = Alibi(heads="half").build(AttentionShape(dim=4, heads=1, kv_heads=1)).bias(q, q)
    assert float(bias[0, 0, 4, 0]) == -4.0 / 256.0


@pytest.mark.parametrize("variant", [Alibi(), RelativeBias(), AdaptiveSpan()], ids=lambda each: each.name)
@pytest.mark.parametrize(("length", "source"), [(9, 9), (2, 9), (1, 1), (9, 2)])
def test_what_is_added_depends_on_the_distance_to_the_last_key_alone(variant, length, source):
    module = built(variant)
    bias = module.bias(numbers(1, 4, length, 4), numbers(1, 4, source, 4))
    assert bias.shape == (1, 4, length, source)
    assert torch.equal(bias[..., 1:, 1:], bias[..., :-1, :-1])
    whole = module.bias(numbers(1, 4, 9, 4), numbers(1, 4, 9, 4))
    assert torch.equal(bias[..., -1, :], whole[..., -1, 9 - source :])


# -- relative bias ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["bidirectional", "causal"])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (16, 64), (48, 300), (64, 512)])
def test_relative_bias_has_the_buckets_of_t5(mode, buckets, max_distance):
    config = T5Config(
        d_model=16, d_kv=4, num_heads=4, is_decoder=mode == "causal", relative_attention_num_buckets=buckets,
        relative_attention_max_distance=max_distance,
    )  # fmt: skip
    theirs = T5Attention(config, has_relative_attention_bias=True, layer_idx=0).double()
    ours = built(RelativeBias(buckets=buckets, max_distance=max_distance), replace(SHAPE, mode=mode))
    with torch.no_grad():
        theirs.relative_attention_bias.weight.copy_(ours.table_HN.T)
    k = numbers(1, 4, 600, 4)
    assert_close(ours.bias(k, k), theirs.compute_bias(600, 600))
    assert_close(ours.bias(k[:, :, :3], k), theirs.compute_bias(3, 600, past_seen_tokens=597))


@queries
def test_relative_bias_is_added_to_the_scores(length):
    q, k, v = inputs(length)
    module = built(RelativeBias())
    table_HN = module.table_HN.detach()

    def score(h: int, i: int, j: int) -> float:
        ahead = j - i - 7 + length  # below the eighth token, each distance has a bucket
        bucket = 16 + ahead if ahead > 0 else -ahead
        return oracles.dot(q[0, h, i], k[0, h, j]) + float(table_HN[h, bucket])

    assert_close(attention(module, q, k, v), by_loops(v, length, score, anything))


def test_far_distances_share_a_bucket_and_the_two_directions_do_not():
    module = built(RelativeBias(buckets=16, max_distance=64))
    row = module.bias(numbers(1, 4, 201, 4), numbers(1, 4, 201, 4))[0, 0, 100]
    assert (row[:37] == row[0]).all()
    assert (row[164:] == row[-1]).all()
    assert len(row.unique()) == 15  # a key that follows is never at distance zero


# -- query-key normalisation -----------------------------------------------------------------------------------------


@queries
def test_normalised_scores_are_cosines_times_the_scale_of_the_head(length):
    q, k, v = inputs(length)
    module = built(QKNorm(scale=7.0))

    def score(h: int, i: int, j: int) -> float:
        a, b = q[0, h, i].tolist(), k[0, h, j].tolist()
        cosine = sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
        return float(module.scale_H.detach()[h]) * cosine

    assert_close(attention(module, q, k, v), by_loops(v, length, score, anything))


def test_normalised_scores_stay_within_the_scale_whatever_the_size_of_the_input():
    q, k, v = inputs(7)
    module = QKNorm(scale=5.0).build(SHAPE).double()
    sharp_q, short_k = module.on_qk(1e3 * q, 1e3 * k, Mask())
    assert DenseAttention().score(sharp_q, short_k).abs().max() <= 5.0 + 1e-9
    assert_close(attention(module, 1e3 * q, 1e-2 * k, v), attention(module, q, k, v))


@pytest.mark.parametrize("core", [Additive(), Multiplicative(score="dot"), Multiplicative()])
def test_a_core_that_does_not_divide_by_the_root_of_k_is_refused(core):
    why = f"'qk_norm' takes the place of a division by sqrt(K), and '{core.name}' has none"
    assert contradiction(type(core), QKNorm) == why
    with pytest.raises(Refused, match=re.escape(f"{why}. Leave one of them out.")):
        token_mixer(core, [QKNorm()], SHAPE)


def test_every_core_that_divides_by_the_root_of_k_may_be_normalised():
    offered = (each.thing for each in the_host().offered("attention").values())
    cores = [each for each in offered if issubclass(each, AttentionCore)]
    refused = {each.name for each in cores if contradiction(each, QKNorm)}
    assert refused == {"additive", "cosformer", "linear", "multiplicative"}
    assert not contradiction(Additive, ScalableSoftmax)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_vector_of_zeros_stays_zero(dtype):
    zeros = torch.zeros(1, 4, 2, 4, dtype=dtype)
    q, k = QKNorm().build(SHAPE).to(dtype).on_qk(zeros, zeros, Mask())
    assert (q == 0.0).all()
    assert (k == 0.0).all()


def test_a_vector_of_zeros_has_finite_gradients():
    zeros = torch.zeros(1, 4, 2, 4, requires_grad=True)
    q, k = QKNorm().build(SHAPE).on_qk(zeros, zeros, Mask())
    (gradient,) = torch.autograd.grad((q + k).sum(), zeros)
    assert gradient.isfinite().all()


# -- scalable softmax ------------------------------------------------------------------------------------------------


@queries
@pytest.mark.parametrize("causal", [False, True])
def test_scores_are_scaled_by_the_logarithm_of_how_many_keys_are_seen(length, causal):
    q, k, v = inputs(length)
    module, mask = built(ScalableSoftmax(), moved=0.1), Mask(causal=causal, padding=PADDING[:1])
    real = PADDING[0].tolist()

    def visible(i: int, j: int) -> bool:
        return real[j] and (not causal or j <= i + 7 - length)

    def score(h: int, i: int, j: int) -> float:
        n = sum(visible(i, other) for other in range(7))
        return float(module.s_H.detach()[h]) * math.log(n) * oracles.dot(q[0, h, i], k[0, h, j])

    assert_close(attention(module, q, k, v, mask), by_loops(v, length, score, visible))


@pytest.mark.parametrize("length", [1, 4, 7, 9])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("parts", [
    {}, {"padding": PADDING}, {"window": (2, 1)}, {"window": (0, 0)}, {"padding": PADDING, "window": (1, 3)},
    {"dense": numbers(7) > 0.0}, {"padding": PADDING, "dense": numbers(2, 4, 1, 7) > 0.0},
    {"dense": numbers(4, 1, 1) > 0.0}, {"bias": numbers(1, 4, 1, 7).masked_fill(numbers(1, 4, 1, 7) > 0.0, -torch.inf)},
], ids=lambda each: "+".join(each) or "none")  # fmt: skip
def test_every_key_that_a_mask_leaves_is_counted_once(length, causal, parts):
    mask = Mask(causal=causal, **parts)
    keep = mask.allowed(length, 7)
    counted = (torch.tensor(True) if keep is None else keep).expand(2, 4, length, 7).sum(-1)
    ones = torch.ones(2, 4, length, 4, dtype=torch.float64)
    q, _ = ScalableSoftmax(start=1.0).build(SHAPE).double().on_qk(ones, ones[:, :, :1].expand(-1, -1, 7, -1), mask)
    assert_close(q[..., 0], counted.clamp_min(1).double().log())


def test_the_highest_score_does_not_fade_as_the_input_grows():
    module, found = ScalableSoftmax(start=0.43).build(replace(SHAPE, heads=1)).double(), []
    for length in (10, 100, 1000):
        scores = torch.full((1, 1, length, 1), -2.0, dtype=torch.float64)
        scores[:, :, -1] = 3.0  # the input of the paper's first figure
        q, k = module.on_qk(torch.ones(1, 1, 1, 1, dtype=torch.float64), scores, Mask())
        found.append([float(each.softmax(-1)[..., -1]) for each in ((q @ k.mT).detach(), k.mT)])
    scaled, plain = zip(*found, strict=True)
    assert min(scaled) > 0.9
    assert plain[2] < 0.15


# -- query temperature -----------------------------------------------------------------------------------------------


@queries
def test_each_query_is_scaled_by_its_own_temperature(length):
    q, k, v = inputs(length)
    module = built(QueryTemperature(width=5))
    w, b, out = module.hidden.weight.tolist(), module.hidden.bias.tolist(), module.out_HR.tolist()

    def score(h: int, i: int, j: int) -> float:
        hidden = [sum(x * y for x, y in zip(row, q[0, h, i].tolist(), strict=True)) for row in w]
        shifted = [x + y for x, y in zip(hidden, b, strict=True)]
        raised = [x * 0.5 * (1.0 + math.erf(x / math.sqrt(2.0))) for x in shifted]
        f = sum(x * y for x, y in zip(raised, out[h], strict=True))
        return (1.0 + math.tanh(f)) * oracles.dot(q[0, h, i], k[0, h, j])

    assert_close(attention(module, q, k, v), by_loops(v, length, score, anything))


def test_a_query_is_scaled_by_two_at_most_and_never_turned_around():
    q, k, _ = inputs(7)
    scaled, same_k = built(QueryTemperature(), moved=30.0).on_qk(q, k, Mask())
    assert same_k is k
    sharpness = (scaled / q).detach()
    assert_close(sharpness, sharpness[..., :1].expand_as(q))
    assert float(sharpness.min()) >= 0.0
    assert float(sharpness.max()) == pytest.approx(2.0)
    assert float(sharpness.min()) < 1e-3


# -- gates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gates", ["headwise", "elementwise"])
def test_a_gate_is_a_sigmoid_of_what_the_layer_reads(gates):
    module, out, x = built(OutputGate(gates=gates, start=1.0)), numbers(2, 4, 3, 4), numbers(2, 3, 16, seed=1)
    found = module.on_out(out, x)
    w, b = module.to_gates.weight, module.to_gates.bias
    for head in range(4):
        for at in range(4):
            row = head if gates == "headwise" else 4 * head + at
            gate = 1.0 / (1.0 + torch.exp(-(x @ w[row]) - b[row]))
            assert_close(found[:, head, :, at], out[:, head, :, at] * gate)


@pytest.mark.parametrize("gates", ["headwise", "elementwise"])
@pytest.mark.parametrize("start", [0.0, 4.0])
def test_every_gate_begins_at_the_sigmoid_of_its_start(gates, start):
    module, out = OutputGate(gates=gates, start=start).build(SHAPE).double(), numbers(2, 4, 3, 4)
    assert_close(module.on_out(out, numbers(2, 3, 16)), out / (1.0 + math.exp(-start)))


def test_gates_far_open_are_softmax():
    module, out = OutputGate(start=50.0).build(SHAPE).double(), numbers(2, 4, 3, 4)
    assert_close(module.on_out(out, numbers(2, 3, 16)), out)


def test_a_tanh_gate_multiplies_what_was_mixed():
    out = numbers(2, 4, 3, 4)
    assert_close(TanhGate(start=0.5).build(SHAPE).double().on_out(out, numbers(2, 3, 16)), out * math.tanh(0.5))


def test_nothing_of_a_source_passes_a_tanh_gate_at_zero_and_it_can_open():
    layer = token_mixer(MultiHead(), [TanhGate()], replace(SHAPE, mode="cross")).double()
    out = layer(numbers(2, 3, 16), Mask(), source_BSD=numbers(2, 5, 16, seed=1))[0].out
    assert_close(out, layer.to_out.bias.expand_as(out))
    out.sum().backward()
    assert layer.modifiers[0].g.grad.abs() > 0.0


# -- scores and weights ----------------------------------------------------------------------------------------------


def test_capped_attention_equals_that_of_gemma_2():
    q, k, v = inputs(5)
    facts = SimpleNamespace(num_key_value_groups=1, head_dim=4, training=False)
    theirs, _ = eager_attention_forward(facts, 20.0 * q, k, v, None, scaling=0.5, softcap=15.0)
    ours = attention(SoftCap(cap=15.0).build(SHAPE), 20.0 * q, k, v)
    assert_close(ours.transpose(1, 2), theirs, rtol=1e-5, atol=1e-6)  # theirs takes the softmax in float32


@queries
def test_capped_scores_equal_their_loops_and_a_bias_comes_after(length):
    q, k, v = inputs(length)
    bias = 30.0 * numbers(1, 4, length, 7, seed=3)

    def score(h: int, i: int, j: int) -> float:
        return 15.0 * math.tanh(oracles.dot(50.0 * q[0, h, i], k[0, h, j]) / 15.0) + float(bias[0, h, i, j])

    found = attention(SoftCap(cap=15.0).build(SHAPE), 50.0 * q, k, v, Mask(bias=bias))
    assert_close(found, by_loops(v, length, score, anything))


def test_no_score_passes_the_cap_and_a_high_cap_is_softmax():
    q, k, v = inputs(7)
    scores = SoftCap(cap=15.0).build(SHAPE).on_score(1e4 * numbers(1, 4, 7, 7))
    assert float(scores.abs().max()) == pytest.approx(15.0)
    assert_close(attention(SoftCap(cap=1e6).build(SHAPE), q, k, v), fused_softmax(q, k, v, Mask()))


def identity_and(more: Tensor | None) -> list[list[float]]:
    square = torch.eye(4, dtype=torch.float64)
    return (square if more is None else square + more).tolist()


@queries
@pytest.mark.parametrize("mixed", ["pre", "post", "both"])
def test_talking_heads_equal_their_loops(length, mixed):
    q, k, v = inputs(length)
    module = built(TalkingHeads(mixed=mixed))
    assert (module.pre_HH is None, module.post_HH is None) == (mixed == "post", mixed == "pre")
    pre, post = identity_and(module.pre_HH), identity_and(module.post_HH)
    expected = torch.zeros(1, 4, length, 4, dtype=torch.float64)
    for i in range(length):
        seen = [j for j in range(7) if past(length)(i, j)]
        scores = [[oracles.dot(q[0, h, i], k[0, h, j]) for j in seen] for h in range(4)]
        heard = [[sum(pre[g][h] * scores[h][n] for h in range(4)) for n in range(len(seen))] for g in range(4)]
        weights = [oracles.softmax(each) for each in heard]
        for g in range(4):
            for n, j in enumerate(seen):
                expected[0, g, i] += sum(post[g][h] * weights[h][n] for h in range(4)) * v[0, g, j]
    assert_close(attention(module, q, k, v, Mask(causal=True)), expected)


def test_what_is_hidden_from_all_heads_stays_hidden_when_they_talk():
    q, k, v = (each.expand(2, -1, -1, -1) for each in inputs(7))
    mask = Mask(padding=PADDING, causal=True, window=(3, 0))
    weights = DenseAttention().mix(q, k, v, mask, [built(TalkingHeads())]).weights
    keep = mask.allowed(7, 7).expand_as(weights)
    assert (weights[~keep] == 0.0).all()
    assert (weights[keep] != 0.0).all()


def test_heads_that_talk_would_carry_to_a_head_what_is_hidden_from_it_alone():
    q, k, v = inputs(7)
    mask = Mask(dense=torch.tensor([False, True, True, True])[:, None, None])
    weights = DenseAttention().mix(q, k, v, mask, [built(TalkingHeads(mixed="post"))]).weights
    assert (weights[:, 0] != 0.0).all()
    assert not TalkingHeads.caps.masks & {"dense", "bias"}  # so that the host refuses such a mask


# -- adaptive span ---------------------------------------------------------------------------------------------------


def spans(*shares: float) -> nn.Module:
    """With a ramp of 8, and shares of 64 tokens."""
    module = AdaptiveSpan(ramp=8).build(SHAPE).double()
    with torch.no_grad():
        module.share_H.copy_(torch.tensor(shares, dtype=torch.float64))
    return module


@pytest.mark.parametrize("length", [1, 30])
@pytest.mark.parametrize("causal", [False, True])
def test_adaptive_span_weighs_each_power_of_the_softmax(length, causal):
    q, k, v = inputs(length, source=30)
    module, expected = spans(0.0, 1.3 / 64, 10 / 64, 60 / 64), torch.zeros(1, 4, length, 4, dtype=torch.float64)
    for h, span in enumerate([0.0, 1.3, 10.0, 60.0]):
        for i in range(length):
            at = i + 30 - length
            seen = range(at + 1) if causal else range(30)
            powers = [
                min(max((8 + span - abs(at - j)) / 8, 0.0), 1.0) * math.exp(oracles.dot(q[0, h, i], k[0, h, j]))
                for j in seen
            ]
            for j, power in zip(seen, powers, strict=True):
                expected[0, h, i] += power / sum(powers) * v[0, h, j]
    assert_close(attention(module, q, k, v, Mask(causal=causal)), expected)


def test_a_key_beyond_span_and_ramp_is_hidden_and_weights_fall_with_distance():
    k = numbers(1, 4, 40, 4)
    m = spans(0.0, 5 / 64, 10 / 64, 1.0).bias(k, k)[0, :, -1].flip(-1).exp()  # by distance
    assert (m.diff(dim=-1) <= 0.0).all()
    assert [int((each == 1.0).sum()) for each in m] == [1, 6, 11, 40]
    assert [int((each > 0.0).sum()) for each in m] == [8, 13, 18, 40]


def test_a_head_whose_span_is_below_zero_still_sees_its_own_token():
    q, k, v = inputs(7)
    module = spans(-0.3, -0.3, -0.3, -0.3)
    assert (module.bias(q, k).diagonal(dim1=-2, dim2=-1) == 0.0).all()
    assert_close(attention(module, q, k, v), attention(spans(0.0, 0.0, 0.0, 0.0), q, k, v))


def test_after_each_step_spans_are_between_nothing_and_the_longest_input():
    module = spans(-0.3, 0.4, 1.0, 1.7)
    assert module.step(0.5) is None
    assert_close(module.share_H.data, torch.tensor([0.0, 0.4, 1.0, 1.0], dtype=torch.float64))


def test_the_loss_is_the_price_of_the_mean_span_and_shortens_spans():
    layer = token_mixer(MultiHead(), [AdaptiveSpan(start=0.5, price=1e-5)], SHAPE)
    mixed: Mixed = layer(numbers(1, 5, 16).float(), Mask())[0]
    assert float(mixed.losses["span"]) == pytest.approx(1e-5 * 0.5 * 64)
    mixed.losses["span"].backward()
    assert_close(layer.modifiers[0].share_H.grad, torch.full((4,), 1e-5 * 64 / 4))


def test_a_span_of_zero_or_of_everything_can_still_learn():
    for share in (0.0, 1.0):
        module = spans(share, share, share, share)
        q, k, v = inputs(120, source=120)
        (gradient,) = torch.autograd.grad(attention(module, q, k, v).square().sum(), module.share_H)
        assert gradient.isfinite().all()
        assert (gradient != 0.0).all()
