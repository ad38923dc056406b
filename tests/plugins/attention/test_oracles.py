"""Every variant equals its paper's formula, written as plain loops."""

import math

import oracles
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from deepmine_auto import AttentionShape, Mask
from deepmine_auto.errors import BadInput
from deepmine_plugins.attention.additive import Additive
from deepmine_plugins.attention.differential import Differential
from deepmine_plugins.attention.entmax import Entmax
from deepmine_plugins.attention.grouped_query import GroupedQuery
from deepmine_plugins.attention.learned_temperature import LearnedTemperature
from deepmine_plugins.attention.linear import Linear
from deepmine_plugins.attention.multi_head import MultiHead
from deepmine_plugins.attention.rotary import Rotary
from deepmine_plugins.attention.sliding_window import SlidingWindow

SHAPE = AttentionShape(dim=8, heads=2, kv_heads=2, layer=3)
PADDING = torch.tensor([[True] * 5 + [False, True]])


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


def by_loops(q: Tensor, k: Tensor, v: Tensor, mask: Mask, window: int = 10**9, **formula) -> Tensor:
    """The loops over one row; `formula` holds a function for each head."""
    lead = k.shape[2] - q.shape[2]

    def visible(i: int, j: int) -> bool:
        ahead = j - i - lead
        real = mask.padding is None or bool(mask.padding[0, j])
        return real and abs(ahead) <= window and not (mask.causal and ahead > 0)

    group = q.shape[1] // k.shape[1]
    heads = [
        oracles.attend(q[0, h], k[0, h // group], v[0, h // group], visible, **{n: f[h] for n, f in formula.items()})
        for h in range(q.shape[1])
    ]
    return torch.stack(heads)[None]


every_mask = pytest.mark.parametrize(
    "mask", [Mask(), Mask(causal=True), Mask(padding=PADDING), Mask(padding=PADDING, causal=True)], ids=str
)
queries = pytest.mark.parametrize("length", [3, 7])


def inputs(length: int, heads: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    k, v = numbers(2, 1, heads, 7, 4)
    return numbers(1, 2, length, 4), k, v


@every_mask
@queries
@pytest.mark.parametrize("weights", [False, True])
def test_softmax_equals_its_loops(mask, length, weights):
    q, k, v = inputs(length)
    assert_close(MultiHead().build(SHAPE)(q, k, v, mask, weights=weights).out, by_loops(q, k, v, mask))


def test_one_key_value_head_serves_all_queries():
    q, k, v = inputs(5, heads=1)
    variant = GroupedQuery(kv_heads=1)
    shape = variant.adapt(SHAPE)
    assert shape.kv_heads == 1
    assert_close(variant.build(shape)(q, k, v, Mask(), weights=False).out, by_loops(q, k, v, Mask()))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [1, 90, 150])
def test_blocks_of_a_window_equal_its_loops(causal, length):
    q, k, v = numbers(1, 1, length, 4), *numbers(2, 1, 1, 150, 4)
    mask = Mask(causal=causal, padding=torch.arange(150)[None] % 7 != 0)
    found = SlidingWindow(window=16).build(SHAPE)(q, k, v, mask, weights=False).out
    assert_close(found, by_loops(q, k, v, mask, window=16))


@every_mask
@queries
def test_linear_attention_equals_its_loops(mask, length):
    q, k, v = inputs(length)
    expected = by_loops(q, k, v, mask, score=[oracles.elu_features] * 2, normalize=[oracles.share] * 2)
    assert_close(Linear().build(SHAPE)(q, k, v, mask, weights=False).out, expected)


@every_mask
@queries
def test_entmax_equals_bisection(mask, length):
    q, k, v = inputs(length)
    module = Entmax(alpha=1.3).build(SHAPE).double()
    torch.nn.init.normal_(module.logit_H)
    expected = by_loops(q, k, v, mask, normalize=[oracles.entmax(each) for each in module.alphas.tolist()])
    assert_close(module(q, k, v, mask, weights=False).out, expected)


@every_mask
@queries
def test_additive_attention_equals_its_loops(mask, length, monkeypatch):
    monkeypatch.setattr("deepmine_plugins.attention.additive.HIDDEN_AT_ONCE", 2 * 7 * 16 * 2)  # two queries at a time
    q, k, v = inputs(length)
    module = Additive(width=16).build(SHAPE).double()
    learned = (module.w_HKA, module.u_HKA, module.v_HA)
    judges = [oracles.additive(*each) for each in zip(*(each.detach() for each in learned), strict=True)]
    assert_close(module(q, k, v, mask, weights=False).out, by_loops(q, k, v, mask, score=judges))


def test_a_temperature_divides_the_scores():
    q, k, v = inputs(4)
    module = LearnedTemperature(start=0.5).build(SHAPE).double()
    warm_q, same_k = module.on_qk(q, k, Mask())
    found = MultiHead().build(SHAPE)(warm_q, same_k, v, Mask(), weights=False).out
    assert_close(found, by_loops(q / math.exp(0.5), k, v, Mask()))


@queries
@pytest.mark.parametrize("fraction", [0.25, 0.5, 1.0])
def test_rotation_equals_complex_numbers_with_the_last_query_at_the_last_key(length, fraction):
    q, k = numbers(1, 2, length, 8), numbers(1, 2, 7, 8)
    variant = Rotary(base=2000.0, fraction=fraction)
    shape = AttentionShape(dim=16, heads=2, kv_heads=2)
    q_turned, k_turned = variant.build(shape).on_qk(q, k, Mask())
    assert_close(q_turned[0, 0], oracles.turned(q[0, 0], 7 - length, 2000.0, fraction))
    assert_close(k_turned[0, 1], oracles.turned(k[0, 1], 0, 2000.0, fraction))


def test_rotated_scores_depend_on_distance_alone():
    q, k = numbers(1, 2, 1, 4).expand(-1, -1, 9, -1), numbers(1, 2, 1, 4).expand(-1, -1, 9, -1)
    q_turned, k_turned = Rotary().build(SHAPE).on_qk(q, k, Mask())
    scores_LL = (q_turned @ k_turned.transpose(-1, -2))[0, 0]
    assert_close(scores_LL[1:, 1:], scores_LL[:-1, :-1])
    assert_close(q_turned.norm(dim=-1), q.norm(dim=-1))


@every_mask
@torch.no_grad()
def test_differential_attention_equals_two_softmax_loops(mask):
    torch.manual_seed(0)
    module, x_BLD = Differential().build(SHAPE).double(), numbers(1, 7, 8)
    q, k, v = (x.unflatten(-1, (2, 4)).transpose(1, 2) for x in module.to_qkv(x_BLD).split((8, 8, 8), -1))
    start = 0.8 - 0.6 * math.exp(-0.3 * 3)
    a, b, c, d = module.balance.products_4J
    balance = torch.exp(a @ b) - torch.exp(c @ d) + start
    first, second = (by_loops(q[..., half], k[..., half], v, mask) for half in (slice(2), slice(2, 4)))
    heads = torch.nn.functional.rms_norm(first - balance * second, (4,), eps=1e-5) * (1.0 - start)
    mixed, _ = module(x_BLD, mask)
    assert_close(mixed.out, module.to_out(heads.transpose(1, 2).flatten(2)))


@pytest.mark.parametrize(("variant", "heads"), [(Differential(), 8), (Rotary(), 8)])
def test_a_head_too_small_for_pairs_is_refused_before_training(variant, heads):
    with pytest.raises(BadInput, match="and a head has 1"):
        variant.build(AttentionShape(dim=8, heads=heads, kv_heads=heads))
