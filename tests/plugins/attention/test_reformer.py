"""Reformer keeps its promises, equals another's on short inputs and plain loops on long ones, and has its limits."""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close
from transformers import ReformerConfig
from transformers.models.reformer.modeling_reformer import LSHSelfAttention

from deepmine_auto import AttentionShape, Mask
from deepmine_auto.testing.attention import AttentionPromises
from deepmine_plugins.attention.reformer import ALONE, Reformer

SHAPE = AttentionShape(dim=16, heads=2, kv_heads=2)


class TestReformer(AttentionPromises):
    variant = Reformer


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def module_of(**fields):
    torch.manual_seed(0)
    return Reformer(**fields).build(SHAPE).double().eval()


def padded(length):
    return torch.rand(2, length, generator=torch.Generator().manual_seed(3)) < 0.8


def heads_of(module, x_BLD):
    q, v = (x.unflatten(-1, (2, 8)).transpose(1, 2) for x in module.to_qv(x_BLD).chunk(2, -1))
    return q, q * (q.square().mean(-1, keepdim=True) + 1e-6).rsqrt() / math.sqrt(8), v


def by_loops(module, x_BLD, causal, real_BL):
    """Each token of each head looks for itself, round by round, at its neighbours in a list of its bucket. A short row
    is one bucket, and to the first tokens of a causal row so is all that is before them."""
    q, k, v = heads_of(module, x_BLD)
    weights = torch.zeros(*q.shape[:3], q.shape[2], dtype=torch.float64)
    for b in range(len(q)):
        for h in range(2):
            for turns_KA in module.turns_HRKA[h]:
                ends = [[*(q[b, h, i] @ turns_KA).tolist()] for i in range(q.shape[2])]
                signed = [each + [-end for end in each] for each in ends]
                hashed = [each.index(max(each)) for each in signed]
                for i in range(q.shape[2]):
                    if not real_BL[b, i]:
                        continue
                    whole = i < module.chunk if causal else int(real_BL[b].sum()) <= module.chunk
                    mates = [j for j in range(q.shape[2]) if real_BL[b, j] and (whole or hashed[j] == hashed[i])]
                    own = mates.index(i)
                    after = own if causal else own + module.chunk
                    seen = mates[max(0, own - module.chunk) : after + 1]
                    for j in seen:
                        score = ALONE if i == j else float(q[b, h, i] @ k[b, h, j])
                        weights[b, h, i, j] += math.exp(score) if i != j else 0.0
            for i in range(q.shape[2]):
                if real_BL[b, i] and weights[b, h, i].sum() == 0.0:
                    weights[b, h, i, i] = 1.0
    weights = weights / weights.sum(-1, keepdim=True).clamp_min(1e-300)
    return module.to_out((weights @ v).transpose(1, 2).flatten(2)), weights


@torch.no_grad()
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("fields", [{"rounds": 1, "buckets": 4}, {"rounds": 3, "buckets": 8}])
@pytest.mark.parametrize("length", [17, 32, 75])
def test_each_token_sees_its_neighbours_in_its_buckets(fields, causal, length):
    module, x, real = module_of(chunk=16, **fields), numbers(2, length, 16), padded(length)
    mixed, _ = module(x, Mask(padding=real, causal=causal), None, weights=True)
    out, weights = by_loops(module, x, causal, real)
    assert_close(mixed.weights * real[:, None, :, None], weights)
    assert_close(mixed.out[real], out[real])
    assert (weights == 0.0).sum() > weights.numel() / 8


@torch.no_grad()
@pytest.mark.parametrize("causal", [False, True])
def test_on_inputs_of_one_chunk_it_equals_the_reformer_of_transformers(causal):
    module, x, real = module_of(chunk=16), numbers(2, 16, 16), padded(16)
    config = ReformerConfig(
        hidden_size=16, num_attention_heads=2, attention_head_size=8, lsh_attn_chunk_length=16, is_decoder=causal,
        lsh_attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    theirs = LSHSelfAttention(config).double().eval()
    theirs.query_key.weight.copy_(module.to_qv.weight[:16])
    theirs.value.weight.copy_(module.to_qv.weight[16:])
    expected = module.to_out(theirs(x, attention_mask=real).hidden_states)
    found = module(x, Mask(padding=real, causal=causal), None)[0].out
    assert_close(found[real], expected[real])


@torch.no_grad()
def test_hashes_are_those_of_transformers_for_the_same_rotations():
    module, x = module_of(rounds=3, buckets=8, chunk=16), numbers(2, 40, 16)
    config = ReformerConfig(
        hidden_size=16, num_attention_heads=2, attention_head_size=8, lsh_attn_chunk_length=16, num_buckets=8,
        num_hashes=3, hash_seed=7,
    )  # fmt: skip
    q, _, _ = heads_of(module, x)
    torch.manual_seed(7)
    turns_HKRA = torch.randn(2, 8, 3, 4, dtype=torch.float64)
    module.turns_HRKA.copy_(turns_HKRA.transpose(1, 2))
    expected = LSHSelfAttention(config)._hash_vectors(q, 3, None).unflatten(-1, (3, 40))
    assert torch.equal(module.buckets(q, Mask()), expected - 8 * torch.arange(3)[:, None])


def shared_softmax(module, x_BLD, causal):
    q, k, v = heads_of(module, x_BLD)
    length = q.shape[2]
    hidden_LL = torch.eye(length, dtype=torch.bool)
    if causal:
        hidden_LL = hidden_LL | torch.ones(length, length, dtype=torch.bool).triu()
        hidden_LL[0, 0] = False
    weights = (q @ k.mT).masked_fill(hidden_LL, -torch.inf).softmax(-1)
    return module.to_out((weights @ v).transpose(1, 2).flatten(2))


@torch.no_grad()
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("rounds", [1, 3])
def test_one_bucket_as_long_as_the_text_is_softmax_over_all_other_tokens(causal, rounds):
    x = numbers(2, 30, 16)
    expected = shared_softmax(module_of(rounds=rounds, chunk=32), x, causal)
    short = module_of(rounds=rounds, chunk=32)
    assert_close(short(x, Mask(causal=causal), None)[0].out, expected)
    # rotations that lead nowhere put every token into the first bucket
    sorted_ = module_of(rounds=rounds, chunk=32)
    sorted_.turns_HRKA.zero_()
    sorted_.chunk, q_k_v = 29, heads_of(sorted_, x)
    mixed = sorted_._by_buckets(*q_k_v, Mask(causal=causal), weights=False)
    assert_close(sorted_.to_out(mixed.out.transpose(1, 2).flatten(2)), expected)


@torch.no_grad()
@pytest.mark.parametrize("length", [9, 40])
def test_a_token_sees_itself_only_where_it_sees_no_other(length):
    module = module_of(rounds=2, buckets=32, chunk=16)
    weights = module(numbers(2, length, 16), Mask(causal=True), None, weights=True)[0].weights
    own = weights.diagonal(dim1=-2, dim2=-1)
    assert ((own == 0.0) | (own == 1.0)).all()
    assert (own[..., 0] == 1.0).all()
    assert (own[..., 1:] == 0.0).any()


@torch.no_grad()
def test_a_crowd_in_one_bucket_is_seen_only_as_far_as_a_chunk():
    module, x = module_of(rounds=1, chunk=16), numbers(1, 60, 16)
    module.turns_HRKA.zero_()
    weights = module(x, Mask(), None, weights=True)[0].weights
    away = (torch.arange(60)[:, None] - torch.arange(60)).abs()
    assert torch.equal(weights > 0.0, ((away <= 16) & (away > 0)).expand_as(weights))


@torch.no_grad()
@pytest.mark.parametrize(("now", "later"), [(9, 17), (16, 80), (60, 80)])
def test_what_comes_later_changes_no_bucket_and_moves_no_border_between_chunks(now, later):
    module, x = module_of(rounds=1, buckets=4, chunk=16), numbers(1, later, 16)
    before, after = (module(each, Mask(causal=True), None, weights=True)[0] for each in (x[:, :now], x))
    assert_close(after.out[:, :now], before.out)
    assert_close(after.weights[:, :, :now, :now], before.weights)


@torch.no_grad()
@pytest.mark.parametrize("real", [1, 9, 16])
def test_a_short_row_is_one_bucket_however_much_padding_follows_it(real):
    module, x = module_of(rounds=3, chunk=16), numbers(1, 60, 16)
    padded = module(x, Mask(padding=torch.arange(60)[None] < real), None)[0].out
    assert_close(padded[:, :real], module(x[:, :real], Mask(), None)[0].out)
    if real > 1:  # a token alone sees itself, which the oracle hides
        assert_close(padded[:, :real], shared_softmax(module, x[:, :real], causal=False))


@torch.no_grad()
def test_rotations_follow_from_the_seed_and_the_layer_and_are_kept():
    turns, other_layer = [Reformer(seed=seed).build(SHAPE).turns_HRKA for seed in (0, 0, 1)], replace(SHAPE, layer=1)
    assert torch.equal(turns[0], turns[1])
    assert not torch.equal(turns[0], turns[2])
    assert not torch.equal(turns[0], Reformer().build(other_layer).turns_HRKA)
    assert torch.equal(module_of().state_dict()["turns_HRKA"], turns[0].double())


def test_gradients_of_sorted_tokens_are_those_of_the_function():
    module = module_of(rounds=2, buckets=4, chunk=16)
    function = lambda x: module(x, Mask(causal=True), None)[0].out  # noqa: E731
    assert torch.autograd.gradcheck(function, numbers(1, 20, 16).requires_grad_(), fast_mode=True)


@torch.no_grad()
def test_sorting_gives_the_same_output_each_time_and_for_each_module_of_a_seed():
    x, module, twin = numbers(2, 70, 16), module_of(chunk=16), module_of(chunk=16)
    first, again, other = (each(x, Mask(), None)[0].out for each in (module, module, twin))
    assert torch.equal(first, again)
    assert torch.equal(first, other)


@torch.no_grad()
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [9, 40])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_floats_know_the_score_of_a_token_with_itself(dtype, length, causal):
    module, x = module_of(chunk=16), numbers(2, length, 16)
    real = torch.arange(length) < torch.tensor([[length], [1]])
    # fewer digits would bring some tokens into other buckets: here there is one
    bucket_BHRL = torch.zeros(2, 2, 2, length, dtype=torch.long).masked_fill(~real[:, None, None], -1)
    module.buckets = lambda q_BHLK, mask: bucket_BHRL
    expected = module(x, Mask(padding=real, causal=causal), None)[0].out
    found = module.to(dtype)(x.to(dtype), Mask(padding=real, causal=causal), None)[0].out
    assert_close(found.double()[real], expected[real], rtol=0.05, atol=0.05)


@torch.no_grad()
@pytest.mark.parametrize("padding", [None, padded(40)])
def test_a_token_by_itself_scores_as_it_did_with_a_lower_score(padding, monkeypatch):
    module, x = module_of(chunk=16).float(), numbers(2, 40, 16).float()
    found = module(x, Mask(padding=padding), None)[0].out
    monkeypatch.setattr("deepmine_plugins.attention.reformer.ALONE", -1e5)
    assert torch.equal(found, module(x, Mask(padding=padding), None)[0].out)
