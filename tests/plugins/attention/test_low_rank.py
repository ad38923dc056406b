"""Variants that never compare every query with every key, and two that mix without queries."""

import math
from dataclasses import replace

import oracles
import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode
from transformers import FNetConfig, NystromformerConfig
from transformers.models.fnet.modeling_fnet import FNetBasicFourierTransform
from transformers.models.nystromformer.modeling_nystromformer import NystromformerSelfAttention

from deepmine_auto import START, AttentionShape, FusedSoftmax, Mask
from deepmine_auto.errors import BadInput
from deepmine_auto.testing.attention import AttentionPromises
from deepmine_plugins.attention.cosformer import CosFormer
from deepmine_plugins.attention.fnet import FNet
from deepmine_plugins.attention.latents import Latents
from deepmine_plugins.attention.linformer import Linformer
from deepmine_plugins.attention.nystrom import Nystrom, pseudo_inverse
from deepmine_plugins.attention.performer import Performer, orthogonal_features
from deepmine_plugins.attention.synthesizer import Synthesizer


class TestNystrom(AttentionPromises):
    variant = Nystrom


class TestLinformer(AttentionPromises):
    variant = Linformer


class TestPerformer(AttentionPromises):
    variant = Performer


class TestCosFormer(AttentionPromises):
    variant = CosFormer


class TestLatents(AttentionPromises):
    variant = Latents


class TestFNet(AttentionPromises):
    variant = FNet


class TestSynthesizer(AttentionPromises):
    variant = Synthesizer


SHAPE = AttentionShape(dim=8, heads=2, kv_heads=2, max_len=40)
GAPS = torch.arange(40)[None] % 3 != 1
"""Every third token is padding."""

both_ways = pytest.mark.parametrize("weights", [False, True])
NOTHING_HIDDEN = Mask()

every_mask = pytest.mark.parametrize(
    "mask",
    [Mask(), Mask(causal=True), Mask(padding=GAPS[:, :7]), Mask(padding=GAPS[:, :7], causal=True)],
    ids=["", "causal", "padding", "padding-causal"],
)


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


def qkv(length: int, rows: int = 1) -> Tensor:
    return numbers(3, rows, 2, length, 4)


def built(variant, shape: AttentionShape = SHAPE) -> torch.nn.Module:
    torch.manual_seed(0)
    return variant.build(shape).double()


def softmax(q: Tensor, k: Tensor, v: Tensor, mask: Mask = NOTHING_HIDDEN) -> Tensor:
    return FusedSoftmax()(q, k, v, mask).out


def by_loops(q: Tensor, k: Tensor, v: Tensor, mask: Mask, score) -> Tensor:
    """Mix by `score(h, i, j)`, a share of all that query i sees; zero where the shares sum to zero."""
    out, lead = torch.zeros_like(q), k.shape[2] - q.shape[2]
    for h in range(q.shape[1]):
        for i in range(q.shape[2]):
            seen = [j for j in range(k.shape[2]) if (mask.padding is None or mask.padding[0, j])
                    and not (mask.causal and j > i + lead)]  # fmt: skip
            scores = [float(score(h, i, j)) for j in seen]
            for share, j in zip(scores, seen, strict=True):
                out[0, h, i] += share / (sum(scores) or 1.0) * v[0, h, j]
    return out


# -- what they cost --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "causal"),
    [
        (Nystrom(landmarks=16, conv=35), False),
        (Linformer(mixtures=16), False),
        (Performer(features=64), False),
        (Performer(features=64), True),
        (CosFormer(), False),
        (CosFormer(), True),
        (Latents(), False),
    ],
)
def test_four_times_the_length_takes_four_times_the_operations(variant, causal):
    module, found = variant.build(AttentionShape(dim=8, heads=2, kv_heads=2, max_len=16384)), []
    for length in (4096, 16384):
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            module(*torch.randn(3, 1, 2, length, 4, requires_grad=True), Mask(causal=causal)).out.sum().backward()
        found.append(counter.get_total_flops())
    assert math.log2(found[1] / found[0]) / 2 == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("variant", [Linformer(), CosFormer()])
def test_an_input_longer_than_the_model_was_built_for_is_refused(variant):
    with pytest.raises(BadInput, match=f"'{variant.name}' takes at most 40 tokens, not 41"):
        built(variant)(*qkv(41), Mask())


def test_decoding_past_the_positions_that_were_learned_is_refused():
    module = built(Synthesizer())
    _, state = module(numbers(1, 40, 8), Mask(causal=True), START)
    with pytest.raises(BadInput, match="'synthesizer' takes at most 40 tokens, not 41"):
        module(numbers(1, 1, 8), Mask(causal=True), state)


# -- nystrom ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("conv", [0, 5])
@both_ways
def test_nystrom_equals_the_authors_model(conv, weights):
    config = NystromformerConfig(
        hidden_size=4, num_attention_heads=1, num_landmarks=4, segment_means_seq_len=24, conv_kernel_size=5
    )
    theirs, x_BLD = NystromformerSelfAttention(config).double().eval(), numbers(1, 24, 4)
    theirs.conv_kernel_size = conv or None
    ours = built(Nystrom(landmarks=4, conv=conv), AttentionShape(dim=4, heads=1, kv_heads=1))
    if conv:
        ours.taps_HW.copy_(theirs.conv.weight[:, 0, :, 0])
    q, k, v = (project(x_BLD)[:, None] for project in (theirs.query, theirs.key, theirs.value))
    assert_close(ours(q, k, v, Mask(), weights=weights).out[:, 0], theirs(x_BLD)[0])


@torch.no_grad()
@pytest.mark.parametrize("conv", [0, 5])
@pytest.mark.parametrize("landmarks", [4, 64])
@both_ways
def test_padding_in_front_and_behind_changes_nothing_for_nystrom(conv, landmarks, weights):
    module = built(Nystrom(landmarks=landmarks, conv=conv))
    if conv:
        module.taps_HW.normal_()
    alone = qkv(17)
    padding = torch.zeros(1, 40, dtype=torch.bool)
    padding[:, 3:20] = True
    whole = qkv(40)
    whole[..., 3:20, :] = alone
    found = module(*whole, Mask(padding=padding), weights=weights).out
    assert_close(found[:, :, 3:20], module(*alone, Mask()).out)


@both_ways
def test_nystrom_is_softmax_where_every_token_is_a_landmark(weights):
    q, k, v = qkv(30)
    assert_close(built(Nystrom(landmarks=30))(q, k, v, Mask(), weights=weights).out, softmax(q, k, v))


@both_ways
@pytest.mark.parametrize("real", [1, 10, 16])
def test_nystrom_is_softmax_where_padding_leaves_no_more_tokens_than_landmarks(weights, real):
    q, k, v = qkv(40)
    mask = Mask(padding=torch.arange(40)[None] < real)
    assert_close(built(Nystrom(landmarks=16))(q, k, v, mask, weights=weights).out, softmax(q, k, v, mask))


def test_the_pseudo_inverse_of_weights_near_one_is_their_inverse():
    x = (8.0 * torch.eye(6) + numbers(3, 6, 6)).softmax(-1)
    assert_close(pseudo_inverse(x), torch.linalg.inv(x), rtol=1e-6, atol=1e-6)


def test_the_pseudo_inverse_keeps_its_digits_in_mixed_precision():
    x = (8.0 * torch.eye(6) + numbers(3, 6, 6)).softmax(-1)
    with torch.autocast("cpu", torch.bfloat16):
        found = pseudo_inverse(x.float())
    assert_close(found, torch.linalg.inv(x).float(), rtol=1e-5, atol=1e-5)


def test_a_row_of_padding_alone_gets_zero_from_nystrom():
    padding = torch.stack((torch.zeros(40), torch.ones(40))).bool()
    out = built(Nystrom(landmarks=4, conv=5))(*qkv(40, rows=2), Mask(padding=padding)).out
    assert (out[0] == 0.0).all()
    assert (out[1] != 0.0).all()


@torch.no_grad()
def test_the_convolution_equals_its_loops():
    q, k, v = qkv(7)
    module = built(Nystrom(conv=5))
    module.taps_HW.normal_()
    expected = softmax(q, k, v, Mask(padding=GAPS[:, :7]))
    for h in range(2):
        for i in range(7):
            for j in range(max(0, i - 2), min(7, i + 3)):
                expected[0, h, i] += float(module.taps_HW[h, j - i + 2]) * v[0, h, j] * float(GAPS[0, j])
    assert_close(module(q, k, v, Mask(padding=GAPS[:, :7])).out, expected)


def test_a_convolution_that_has_not_learned_yet_changes_nothing():
    q, k, v = qkv(7)
    assert_close(built(Nystrom(conv=65))(q, k, v, Mask()).out, softmax(q, k, v))


# -- linformer -------------------------------------------------------------------------------------------------------


@torch.no_grad()
@both_ways
def test_linformer_is_softmax_where_every_token_is_its_own_mixture(weights):
    q, k, v = qkv(40)
    module = built(Linformer(mixtures=40))
    for each in module.parameters():
        torch.nn.init.eye_(each)
    assert_close(module(q, k, v, Mask(), weights=weights).out, softmax(q, k, v))


@torch.no_grad()
@both_ways
def test_linformer_equals_its_loops(weights):
    q, k, v = qkv(7)
    module = built(Linformer(mixtures=3))
    keys, values = torch.zeros(2, 3, 4).double(), torch.zeros(2, 3, 4).double()
    for h in range(2):
        for r in range(3):
            for j in range(7):
                if GAPS[0, j]:
                    keys[h, r] += module.of_keys_RN[r, j] * k[0, h, j]
                    values[h, r] += module.of_values_RN[r, j] * v[0, h, j]
    expected = torch.stack([oracles.attend(q[0, h], keys[h], values[h], lambda i, j: True) for h in range(2)])
    assert_close(module(q, k, v, Mask(padding=GAPS[:, :7]), weights=weights).out[0], expected)


# -- performer -------------------------------------------------------------------------------------------------------


def test_random_features_are_orthogonal_within_a_block_and_cut_to_their_number():
    torch.manual_seed(0)
    features_MK = orthogonal_features(10, 4)
    assert features_MK.shape == (10, 4)
    for block in features_MK.split(4):
        products = block @ block.T
        assert_close(products, products.diagonal().diag(), rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("head_dim", [1, 3])
def test_products_of_random_features_are_exponentials_on_average(head_dim):
    torch.manual_seed(0)
    draws_NMK = orthogonal_features(4000 * head_dim, head_dim).unflatten(0, (4000, -1)).double()
    q_K, k_K = torch.linspace(0.3, 0.9, head_dim).double(), torch.linspace(0.8, 0.1, head_dim).double()
    of_q, of_k = (torch.exp(draws_NMK @ x - x @ x / 2.0) for x in (q_K, k_K))
    estimates_N = (of_q * of_k).mean(-1)
    deviation = float(estimates_N.std()) / math.sqrt(len(estimates_N))
    assert float(estimates_N.mean()) == pytest.approx(math.exp(q_K @ k_K), abs=4.0 * deviation)


def test_eight_times_the_features_leave_a_third_of_the_error():
    q, k, v = 0.4 * qkv(20)
    errors = []
    for features in (64, 512):
        torch.manual_seed(0)
        modules = [Performer(features=features).build(SHAPE).double() for _ in range(30)]
        errors.append(sum(float((each(q, k, v, Mask()).out - softmax(q, k, v)).abs().mean()) for each in modules))
    assert errors[0] / errors[1] == pytest.approx(math.sqrt(8.0), rel=0.25)


@both_ways
@every_mask
@pytest.mark.parametrize("length", [3, 7])
def test_performer_equals_its_loops(weights, mask, length):
    (_, k, v), q = qkv(7), numbers(1, 2, length, 4)
    module = built(Performer(features=64))

    def score(h: int, i: int, j: int) -> float:
        a, b = (x[0, h, at] / 4**0.25 for x, at in ((q, i), (k, j)))
        return sum(math.exp(w @ a - a @ a / 2.0) * math.exp(w @ b - b @ b / 2.0) for w in module.features_MK)

    assert_close(module(q, k, v, mask, weights=weights).out, by_loops(q, k, v, mask, score))


@pytest.mark.parametrize("scale", [1e-3, 30.0])
def test_large_queries_and_keys_leave_the_weights_finite_and_whole(scale):
    q, k, v = (scale * qkv(20)).float()
    weights = Performer().build(SHAPE)(q, k, v, Mask(), weights=True).weights
    assert_close(weights.sum(-1), torch.ones(1, 2, 20))


def test_features_are_drawn_anew_by_the_share_of_training_and_not_at_its_end():
    module, seen = Performer(redraws=4).build(SHAPE), []
    before = module.features_MK.clone()
    for step in range(1, 21):
        module.step(step / 20)
        if not torch.equal(before, module.features_MK):
            seen.append(step)
        before = module.features_MK.clone()
    assert seen == [5, 10, 15]


def test_a_checkpoint_holds_the_features_and_how_often_they_were_drawn():
    first, second = Performer(redraws=4).build(SHAPE), Performer(redraws=4).build(SHAPE)
    first.step(0.5)
    second.load_state_dict(first.state_dict())
    second.step(0.6)
    assert torch.equal(first.features_MK, second.features_MK)


def test_new_features_follow_the_seed():
    found = []
    for _ in range(2):
        module = built(Performer())
        torch.manual_seed(7)
        module.step(0.5)
        found.append(module.features_MK)
    assert torch.equal(*found)


# -- cosformer -------------------------------------------------------------------------------------------------------


@both_ways
@every_mask
@pytest.mark.parametrize("length", [3, 7])
def test_cosformer_equals_its_loops(weights, mask, length):
    (_, k, v), q = qkv(7), numbers(1, 2, length, 4)

    def score(h: int, i: int, j: int) -> float:
        product = sum(max(0.0, float(a)) * max(0.0, float(b)) for a, b in zip(q[0, h, i], k[0, h, j], strict=True))
        return product * math.cos(math.pi / 2 * (i + 7 - length - j) / SHAPE.max_len)

    assert_close(built(CosFormer())(q, k, v, mask, weights=weights).out, by_loops(q, k, v, mask, score))


def test_far_positions_keep_their_digits_in_half_precision():
    module = built(CosFormer(), replace(SHAPE, max_len=2000))
    half, exact = (
        module._features(torch.ones(1, 2, 2000, 4, dtype=each), 0) for each in (torch.bfloat16, torch.float64)
    )
    assert half.dtype == torch.bfloat16
    assert_close(half.double(), exact, rtol=0.0, atol=0.003)


def test_weights_of_cosformer_are_never_negative():
    weights = built(CosFormer())(*qkv(40), Mask(), weights=True).weights
    assert (weights >= 0.0).all()


@both_ways
def test_a_query_without_positive_features_gets_zero_and_finite_gradients(weights):
    q, k, v = (each.requires_grad_() for each in (-numbers(1, 2, 5, 4).abs(), *numbers(2, 1, 2, 5, 4)))
    out = built(CosFormer())(q, k, v, Mask(causal=True), weights=weights).out
    gradients = torch.autograd.grad(out.sum(), (q, k, v))
    assert (out == 0.0).all()
    assert all(each.isfinite().all() for each in gradients)


# -- latents ---------------------------------------------------------------------------------------------------------


@both_ways
def test_latents_equal_their_loops(weights):
    (_, k, v), q = qkv(7), numbers(1, 2, 3, 4)
    module = built(Latents(latents=5))
    expected = []
    for h in range(2):
        latents = module.latents_HRK[h].detach()
        keys, values = (oracles.attend(latents, k[0, h], x[0, h], lambda i, j: bool(GAPS[0, j])) for x in (k, v))
        expected.append(oracles.attend(q[0, h], keys, values, lambda i, j: True))
    assert_close(module(q, k, v, Mask(padding=GAPS[:, :7]), weights=weights).out[0], torch.stack(expected))


def test_what_one_latent_finds_is_the_same_for_every_query():
    out = built(Latents(latents=1))(*qkv(7), Mask()).out
    assert_close(out, out[:, :, :1].expand(-1, -1, 7, -1))


# -- fnet ------------------------------------------------------------------------------------------------------------


def test_fnet_equals_the_authors_model_up_to_its_scale():
    x_BLD = numbers(2, 9, 8)
    theirs = FNetBasicFourierTransform(FNetConfig(hidden_size=8))(x_BLD)[0]
    assert_close(built(FNet())(x_BLD, Mask())[0].out, theirs / math.sqrt(9 * 8))


def test_one_transform_of_fnet_serves_all_rows_of_a_length(monkeypatch):
    shapes, once = [], torch.fft.fft2
    monkeypatch.setattr(torch.fft, "fft2", lambda x, **told: shapes.append(tuple(x.shape)) or once(x, **told))
    padding = torch.arange(9) < torch.tensor([[9], [4], [0], [9], [4], [9]])
    padding[4] = padding[4].flip(-1)
    x_BLD = numbers(6, 9, 8)
    out_BLD = built(FNet())(x_BLD, Mask(padding=padding))[0].out
    assert sorted(shapes) == [(2, 4, 8), (3, 9, 8)]
    for row, real_L in enumerate(padding):
        assert (out_BLD[row, ~real_L] == 0.0).all()
        if real_L.any():
            assert_close(out_BLD[row, real_L], once(x_BLD[row, real_L], norm="ortho").real)


def test_padding_anywhere_changes_nothing_for_fnet():
    x_BLD = numbers(2, 40, 8)
    padding = torch.cat((GAPS, torch.zeros_like(GAPS)))
    out = built(FNet())(x_BLD, Mask(padding=padding))[0].out
    assert_close(out[0, GAPS[0]], built(FNet())(x_BLD[:1, GAPS[0]], Mask())[0].out[0])
    assert (out[~padding] == 0.0).all()


# -- synthesizer -----------------------------------------------------------------------------------------------------


@torch.no_grad()
@both_ways
@every_mask
@pytest.mark.parametrize("rank", [2, 6])
@pytest.mark.parametrize("kv_heads", [1, 2])
def test_synthesizer_equals_its_loops(weights, mask, rank, kv_heads):
    module = built(Synthesizer(rank=rank), AttentionShape(dim=8, heads=2, kv_heads=kv_heads, max_len=40))
    x_BLD = numbers(1, 7, 8)
    v = module.to_v(x_BLD).unflatten(-1, (kv_heads, 4)).transpose(1, 2).repeat_interleave(2 // kv_heads, 1)

    def score(h: int, i: int, j: int) -> float:
        return math.exp(module.a_HNR[h, i] @ module.b_GNR[h % kv_heads, j] / math.sqrt(rank))

    expected = module.to_out(by_loops(v, v, v, mask, score).transpose(1, 2).flatten(2))
    assert_close(module(x_BLD, mask, weights=weights)[0].out, expected)


def test_tokens_do_not_decide_who_looks_at_whom():
    module = built(Synthesizer())
    first, second = (module(x, Mask(), weights=True)[0].weights for x in numbers(2, 1, 7, 8))
    assert torch.equal(first, second)


def test_without_a_state_synthesizer_keeps_nothing():
    assert built(Synthesizer())(numbers(1, 7, 8), Mask())[1] is None
