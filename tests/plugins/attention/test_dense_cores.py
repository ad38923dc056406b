"""Cores that change what softmax does with scores, or what competes for its weight: promises, loops and limits."""

import copy
import math
from dataclasses import replace
from types import SimpleNamespace

import oracles
import pytest
import torch
from test_oracles import PADDING, SHAPE, by_loops, every_mask, inputs, numbers, queries
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward

from deepmine_auto import Mask
from deepmine_auto.model.multi_head import token_mixer
from deepmine_auto.testing.attention import AttentionPromises
from deepmine_plugins.attention.hard import Hard
from deepmine_plugins.attention.learned_temperature import LearnedTemperature
from deepmine_plugins.attention.multi_head import MultiHead
from deepmine_plugins.attention.multiplicative import Multiplicative
from deepmine_plugins.attention.registers import Registers
from deepmine_plugins.attention.sigmoid import Sigmoid
from deepmine_plugins.attention.sink import Sink, softmax_with_sink
from deepmine_plugins.attention.top_k import TopK
from deepmine_plugins.attention.visual_sentinel import VisualSentinel

BLIND = Mask(dense=torch.tensor([True] * 3 + [False] + [True] * 3)[:, None])
"""The fourth query sees nothing."""

both_forms = pytest.mark.parametrize("weights", [False, True])


class TestTopK(AttentionPromises):
    variant = TopK


class TestSigmoid(AttentionPromises):
    variant = Sigmoid


class TestMultiplicative(AttentionPromises):
    variant = Multiplicative


class TestSink(AttentionPromises):
    variant = Sink


class TestRegisters(AttentionPromises):
    variant = Registers


class TestVisualSentinel(AttentionPromises):
    variant = VisualSentinel


class TestHard(AttentionPromises):
    variant = Hard


def built(variant):
    """The module with parameters that are not at their start."""
    module = variant.build(SHAPE).double()
    for each in module.parameters():
        torch.nn.init.normal_(each, generator=torch.Generator().manual_seed(0))
    return module


def softmax_of(q: Tensor, k: Tensor, v: Tensor, mask: Mask = Mask()) -> Tensor:  # noqa: B008
    return MultiHead().build(SHAPE)(q, k, v, mask, weights=True)


# -- top-k


def highest(most: int) -> oracles.Normalize:
    def normalize(scores: list[float]) -> list[float]:
        least = sorted(scores)[-most:][0]
        powers = [math.exp(each) if each >= least else 0.0 for each in scores]
        return [each / sum(powers) for each in powers]

    return normalize


@every_mask
@queries
def test_top_k_equals_its_loops(mask, length):
    q, k, v = inputs(length)
    found = TopK(most=4).build(SHAPE)(q, k, v, mask, weights=False).out
    assert_close(found, by_loops(q, k, v, mask, normalize=[highest(4)] * 2))


def test_k_keys_have_weight_and_no_more():
    weights = TopK(most=4).build(SHAPE)(*inputs(5), Mask(), weights=True).weights
    assert ((weights > 0.0).sum(-1) == 4).all()


def test_a_query_that_sees_fewer_than_k_keys_weighs_them_all():
    weights = TopK(most=4).build(SHAPE)(*inputs(7), Mask(causal=True), weights=True).weights
    assert (weights > 0.0).sum(-1)[0, 0].tolist() == [1, 2, 3, 4, 4, 4, 4]


def test_keys_that_tie_are_chosen_together():
    q, k, v = inputs(3)
    found = TopK(most=4).build(SHAPE)(q, k[:, :, :1].expand_as(k), v, Mask(), weights=False).out
    assert_close(found, v.mean(2, keepdim=True).expand_as(found))


@both_forms
@pytest.mark.parametrize("most", [7, 64])
def test_with_as_many_choices_as_keys_top_k_is_softmax(most, weights):
    q, k, v = inputs(5)
    assert_close(TopK(most=most).build(SHAPE)(q, k, v, Mask(), weights=weights).out, softmax_of(q, k, v).out)


def test_with_as_many_choices_as_keys_top_k_costs_what_softmax_costs():
    assert TopK(most=64).cost(SHAPE, 64) == MultiHead().cost(SHAPE, 64)
    assert TopK(most=64).cost(SHAPE, 65) > MultiHead().cost(SHAPE, 65)


# -- sigmoid


def alone(offset: float) -> oracles.Normalize:
    def normalize(scores: list[float]) -> list[float]:
        return [1.0 / (1.0 + math.exp(math.log(len(scores)) - offset - each)) for each in scores]

    return normalize


@every_mask
@queries
def test_sigmoid_attention_equals_its_loops(mask, length):
    q, k, v = inputs(length)
    module = built(Sigmoid())
    expected = by_loops(q, k, v, mask, normalize=[alone(each) for each in module.offset_H.tolist()])
    assert_close(module(q, k, v, mask, weights=False).out, expected)


def test_where_scores_are_zero_sigmoid_weights_begin_with_a_sum_of_almost_one():
    _, k, v = inputs(5)
    weights = Sigmoid().build(SHAPE)(torch.zeros_like(k), k, v, Mask(causal=True), weights=True).weights
    seen = torch.arange(1.0, 8.0, dtype=torch.float64)
    assert_close(weights.sum(-1)[0, 0], seen / (seen + 1.0))


def test_a_sigmoid_weight_depends_on_no_other_key():
    q, k, v = inputs(5)
    other = k.clone()
    other[:, :, 2] += 1.0
    before, after = (built(Sigmoid())(q, each, v, Mask(), weights=True).weights for each in (k, other))
    same = torch.arange(7) != 2
    assert torch.equal(before[..., same], after[..., same])
    assert not torch.equal(before[..., 2], after[..., 2])


def test_a_higher_score_is_a_higher_sigmoid_weight():
    q, k, v = inputs(5)
    weights = built(Sigmoid())(q, k, v, Mask(), weights=True).weights
    assert torch.equal(weights.argsort(-1), (q @ k.transpose(-1, -2)).argsort(-1))


# -- multiplicative


def plain(w_KK: Tensor) -> oracles.Score:
    def score(q_K: Tensor, k_K: Tensor) -> float:
        size = range(len(q_K))
        return sum(float(q_K[i]) * float(w_KK[i, j]) * float(k_K[j]) for i in size for j in size)

    return score


@every_mask
@queries
@both_forms
def test_general_scores_equal_their_loops(mask, length, weights):
    q, k, v = inputs(length)
    module = built(Multiplicative(score="general"))
    expected = by_loops(q, k, v, mask, score=[plain(each) for each in module.w_HKK.detach()])
    assert_close(module(q, k, v, mask, weights=weights).out, expected)


@every_mask
@both_forms
def test_dot_scores_are_products_that_nothing_divides(mask, weights):
    q, k, v = inputs(5)
    module = Multiplicative(score="dot").build(SHAPE)
    assert_close(module(q, k, v, mask, weights=weights).out, by_loops(q, k, v, mask, score=[plain(torch.eye(4))] * 2))
    assert not list(module.parameters())


def test_general_scores_begin_as_dot_scores():
    general, dot = (
        Multiplicative(score=each).build(SHAPE).double()(*inputs(5), Mask(), weights=False).out
        for each in ("general", "dot")
    )
    assert_close(general, dot)


# -- sink


def beside(logit: float) -> oracles.Normalize:
    return lambda scores: oracles.softmax([logit, *scores])[1:]


@every_mask
@queries
@both_forms
def test_a_sink_equals_its_loops(mask, length, weights):
    q, k, v = inputs(length)
    module = built(Sink())
    expected = by_loops(q, k, v, mask, normalize=[beside(each) for each in module.logit_H.tolist()])
    assert_close(module(q, k, v, mask, weights=weights).out, expected)


@both_forms
def test_a_sink_is_that_of_gpt_oss(weights):
    q, k, v = inputs(5)
    ours = built(Sink())
    theirs = SimpleNamespace(sinks=ours.logit_H, num_key_value_groups=1, training=False)
    expected, their_weights = eager_attention_forward(theirs, q, k, v, None, scaling=0.5)
    mixed = ours(q, k, v, Mask(), weights=weights)
    assert_close(mixed.out, expected.transpose(1, 2))
    assert mixed.weights is None or torch.allclose(mixed.weights, their_weights)


def test_what_the_keys_do_not_get_the_sink_gets():
    q, k, v = inputs(5)
    module = built(Sink())
    _, sunk = softmax_with_sink(q, k, v, Mask(causal=True), module.logit_H[:, None, None])
    sums = module(q, k, v, Mask(causal=True), weights=True).weights.sum(-1, keepdim=True)
    assert_close(sums + sunk, torch.ones_like(sums))
    assert (sunk > 0.0).all()


def test_a_sink_at_zero_adds_one_to_the_denominator():
    q, k, v = inputs(5)
    powers = (q @ k.transpose(-1, -2) / 2.0).exp()
    expected = powers / (1.0 + powers.sum(-1, keepdim=True)) @ v
    assert_close(Sink(start=0.0).build(SHAPE).double()(q, k, v, Mask(), weights=False).out, expected)


# -- registers


@every_mask
@queries
def test_registers_equal_loops_over_more_keys(mask, length):
    q, k, v = inputs(length)
    module = built(Registers(count=4))
    more_k, more_v, lead = module.k_GNK.detach(), module.v_GNK.detach(), 7 - length

    def visible(i: int, j: int) -> bool:
        real = mask.padding is None or bool(mask.padding[0, j - 4])
        return j < 4 or (real and not (mask.causal and j - 4 > i + lead))

    heads = [
        oracles.attend(q[0, h], torch.cat((more_k[h], k[0, h])), torch.cat((more_v[h], v[0, h])), visible)
        for h in range(2)
    ]
    assert_close(module(q, k, v, mask, weights=False).out, torch.stack(heads)[None])


def test_registers_show_no_weights_because_those_of_the_keys_are_not_all():
    assert built(Registers())(*inputs(5), Mask(), weights=True).weights is None


# -- sentinel


def by_sentinel_loops(module, q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
    """Each query with one more key and value, which are its own."""
    parts = []
    for h in range(2):
        gate, content, key = (each[h].detach() for each in (module.gate_HKK, module.content_HKK, module.key_HKK))
        rows = []
        for i in range(q.shape[2]):
            q_K = q[0, h, i]
            own_K = torch.sigmoid(q_K @ gate) * torch.tanh(q_K @ content)
            k_SK, v_SK = torch.cat(((own_K @ key)[None], k[0, h])), torch.cat((own_K[None], v[0, h]))
            last = i + 7 - q.shape[2]

            def visible(_: int, j: int, last: int = last) -> bool:
                real = mask.padding is None or bool(mask.padding[0, j - 1])
                return j == 0 or (real and not (mask.causal and j - 1 > last))

            rows.append(oracles.attend(q_K[None], k_SK, v_SK, visible)[0])
        parts.append(torch.stack(rows))
    return torch.stack(parts)[None]


@every_mask
@queries
def test_a_sentinel_equals_its_loops(mask, length):
    q, k, v = inputs(length)
    module = built(VisualSentinel())
    assert_close(module(q, k, v, mask, weights=False).out, by_sentinel_loops(module, q, k, v, mask))


def test_weights_of_the_keys_and_of_the_sentinel_sum_to_one():
    q, k, _ = inputs(1)
    module = built(VisualSentinel())
    own = module.sentinel(q)  # where all say the same, a mixture says it too
    assert_close(module(q, k, own.expand_as(k), Mask(), weights=False).out, own)


def test_the_share_of_the_sentinel_lies_between_nothing_and_all():
    q, k, v = inputs(5)
    module = built(VisualSentinel())
    share = module(q, k, torch.zeros_like(v), Mask(), weights=False).out / module.sentinel(q)
    assert_close(share, share[..., :1].expand_as(share))
    assert (share > 0.0).all()
    assert (share < 1.0).all()


# -- what sink, registers and sentinel share


@pytest.mark.parametrize("variant", [Sink(), Registers(), VisualSentinel()])
@both_forms
def test_a_query_that_may_see_no_key_gets_zero(variant, weights):
    q, k, v = inputs(7)
    out = built(variant)(q, k, v, BLIND, weights=weights).out
    assert torch.equal(out[:, :, 3], torch.zeros_like(out[:, :, 3]))
    assert (out[:, :, 4] != 0.0).all()


class Largest(TorchDispatchMode):
    """The most numbers that any tensor holds."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.numbers = max([self.numbers, *(each.numel() for each in tree_leaves(out) if isinstance(each, Tensor))])
        return out


@pytest.mark.parametrize("mask", [Mask(), Mask(causal=True), Mask(padding=torch.arange(64)[None] > 3)], ids=str)
@pytest.mark.parametrize(
    "variant", [Sink(), Registers(count=16), VisualSentinel(), Multiplicative(), TopK(most=64)], ids=lambda x: x.name
)
def test_the_fast_form_never_holds_the_weights_of_all_pairs(variant, mask):
    q, k, v = torch.randn(3, 1, 2, 64, 4, requires_grad=True)
    with Largest() as largest:
        variant.build(SHAPE)(q, k, v, mask, weights=False).out.sum().backward()
    assert 0 < largest.numbers < 64 * 64


# -- hard


def training(**fields):
    return Hard(**fields).build(SHAPE).double().train()


def test_hard_attention_is_the_coldest_softmax():
    q, k, v = inputs(7)
    found = Hard().build(SHAPE).eval()(q, k, v, Mask(causal=True), weights=False).out
    assert_close(found, softmax_of(1e6 * q, k, v, Mask(causal=True)).out)


@pytest.mark.parametrize("mode", [True, False])
def test_a_query_looks_at_one_key_alone(mode):
    weights = training().train(mode)(*inputs(7), Mask(causal=True), weights=True).weights
    assert_close(weights.amax(-1), torch.ones(1, 2, 7, dtype=torch.float64))
    assert ((weights > 0.5).sum(-1) == 1).all()
    assert ((weights != 0.0).sum(-1) == 1).all()


def drawn_weights(seed: int, tau: float = 1.0) -> Tensor:
    module = training()
    module.tau.fill_(tau)
    torch.manual_seed(seed)
    return module(*inputs(7), Mask(), weights=True).weights.round()


def test_the_same_seed_draws_the_same_keys_at_any_temperature():
    assert torch.equal(drawn_weights(0), drawn_weights(0))
    assert torch.equal(drawn_weights(0), drawn_weights(0, tau=0.1))
    assert not torch.equal(drawn_weights(0), drawn_weights(1))


DRAWS = 20_000


def drawn_often(loss, tau: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Mean output and mean gradient of a query among five keys, and what they are drawn from."""
    q, k, v = numbers(1, 2, 1, 4), numbers(2, 1, 2, 5, 4)[0], numbers(2, 1, 2, 5, 4)[1]
    module = training()
    module.tau.fill_(tau)
    torch.manual_seed(0)
    many = q.repeat(DRAWS, 1, 1, 1).requires_grad_()
    out = module(many, *(each.expand(DRAWS, -1, -1, -1) for each in (k, v)), Mask(), weights=False).out
    (gradient,) = torch.autograd.grad(loss(out).sum(), many)
    return out.detach().mean(0), gradient.mean(0), q, k, v


def test_keys_are_drawn_as_often_as_their_softmax_weights_say():
    mean, _, q, k, v = drawn_often(torch.square)
    assert_close(mean[None], softmax_of(q, k, v).out, rtol=0.0, atol=6.0 * float(v.std()) / math.sqrt(DRAWS))


@pytest.mark.parametrize("tau", [0.3, 1.0])
def test_gradients_pass_as_if_the_noisy_scores_had_been_mixed_at_that_temperature(tau):
    q, k, v = inputs(7)
    module, towards = training(), numbers(1, 2, 7, 4)
    module.tau.fill_(tau)
    torch.manual_seed(0)
    noise = -torch.empty(1, 2, 7, 7, dtype=torch.float64).exponential_().log()
    mixed = ((q.requires_grad_() @ k.transpose(-1, -2) / 2.0 + noise) / tau).softmax(-1) @ v
    torch.manual_seed(0)
    drawn = module(q, k, v, Mask(), weights=False).out
    found, expected = (torch.autograd.grad((each * towards).sum(), q) for each in (drawn, mixed))
    assert_close(found, expected)


def test_mean_gradients_point_where_those_of_the_expected_loss_do():
    _, gradient, q, k, v = drawn_often(torch.square, tau=0.5)
    q = q.requires_grad_()
    weights = softmax_of(q, k, v).weights  # all five outcomes, each with its chance
    (exact,) = torch.autograd.grad((weights @ v.square()).sum(), q)
    assert F.cosine_similarity(gradient.flatten(), exact.flatten(), dim=0) > 0.9


def test_a_linear_loss_has_almost_the_exact_gradient_when_it_is_cold():
    towards = numbers(4)
    _, gradient, q, k, v = drawn_often(lambda out: out @ towards, tau=0.1)
    (exact,) = torch.autograd.grad((softmax_of(q.requires_grad_(), k, v).out @ towards).sum(), q)
    assert_close(gradient[None], exact, rtol=0.1, atol=0.05)


def test_the_temperature_falls_evenly_and_is_saved():
    module = training()
    found = []
    for done in (0.0, 0.5, 1.0):
        module.step(done)
        found.append(float(module.state_dict()["tau"]))
    assert found == pytest.approx([2.0, math.sqrt(0.2), 0.1])
    assert float(training().tau) == 2.0


def entropy_of(weights: Tensor, mask: Mask) -> Tensor:
    """Of the queries that are no padding; zero where one sees nothing."""
    real = slice(None) if mask.padding is None else mask.padding[0]
    return -torch.where(weights > 0.0, weights * weights.clamp_min(1e-300).log(), 0.0).sum(-1)[..., real].mean()


@pytest.mark.parametrize("mask", [Mask(), Mask(causal=True), Mask(padding=PADDING), BLIND], ids=str)
def test_the_loss_is_the_mean_entropy_of_what_is_drawn(mask):
    q, k, v = inputs(7)
    losses = training(bonus=0.1)(q, k, v, mask, weights=False).losses
    assert set(losses) == {"entropy"}
    assert_close(losses["entropy"], -0.1 * entropy_of(softmax_of(q, k, v, mask).weights, mask))


def test_padding_earns_no_reward():
    q, k, v = inputs(7)
    alone = training()(q[:, :, :5], k[:, :, :5], v[:, :, :5], Mask(), weights=False).losses["entropy"]
    mask = Mask(padding=torch.arange(7)[None] < 5)
    assert_close(training()(q, k, v, mask, weights=False).losses["entropy"], alone)


def test_every_query_earns_its_reward_where_the_padding_is_that_of_another_text():
    (q, k, v), mask = inputs(7), Mask(padding=torch.arange(7)[None] < 5)
    module = Hard(bonus=0.1).build(replace(SHAPE, mode="cross")).double().train()
    found = module(q, k, v, mask, weights=False).losses["entropy"]
    assert_close(found, -0.1 * entropy_of(softmax_of(q, k, v, mask).weights, Mask()))


def test_the_loss_of_a_batch_is_the_mean_over_its_rows():
    q, k, v = numbers(3, 3, 2, 6, 4)
    module, padding = training(), torch.arange(6) < torch.tensor([[6], [2], [0]])

    def loss(rows: slice) -> Tensor:
        return module(q[rows], k[rows], v[rows], Mask(padding=padding[rows]), weights=False).losses["entropy"]

    assert_close(loss(slice(3)), torch.stack([loss(slice(i, i + 1)) for i in range(3)]).mean())


def test_the_loss_has_finite_gradients_where_keys_are_hidden():
    q, k, v = (each.requires_grad_() for each in inputs(7))
    loss = training()(q, k, v, Mask(causal=True, dense=BLIND.dense), weights=False).losses["entropy"]
    for gradient in torch.autograd.grad(loss, (q, k)):
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0.0


def test_there_is_no_loss_in_evaluation():
    assert not training().eval()(*inputs(7), Mask(), weights=False).losses


def test_a_modifier_leaves_the_loss_in_place():
    layer = token_mixer(Hard(), [LearnedTemperature()], replace(SHAPE, dim=8)).double()
    mixed, _ = layer(numbers(1, 7, 8), Mask(), None)
    assert mixed.losses["entropy"] < 0.0


def test_a_module_can_be_copied_in_the_middle_of_training():
    module = training()
    q, k, v = (each.requires_grad_() for each in inputs(7))
    module(q, k, v, Mask(), weights=False)
    assert float(copy.deepcopy(module).tau) == 2.0
