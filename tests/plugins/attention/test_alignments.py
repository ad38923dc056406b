"""Attention that knows where it looked before: its promises, its papers' formulas step by step, its limits."""

import math
from dataclasses import replace

import oracles
import pytest
import torch
from torch.testing import assert_close

from deepmine_auto import AttentionShape, Mask
from deepmine_auto.admission import contradiction, inadmissible
from deepmine_auto.model.guard import Refused
from deepmine_auto.model.multi_head import token_mixer
from deepmine_auto.space import join
from deepmine_auto.testing.attention import AttentionPromises
from deepmine_plugins.attention.additive import Additive
from deepmine_plugins.attention.coverage import Coverage
from deepmine_plugins.attention.grouped_query import GroupedQuery
from deepmine_plugins.attention.linear import Linear
from deepmine_plugins.attention.location import Location
from deepmine_plugins.attention.multi_head import MultiHead
from deepmine_plugins.attention.visual_sentinel import VisualSentinel
from deepmine_plugins.backbones.decoder import Decoder
from deepmine_plugins.backbones.encoder import Encoder
from deepmine_plugins.backbones.encoder_decoder import EncoderDecoder
from deepmine_plugins.backbones.lstm import Lstm

SHAPE = AttentionShape(dim=8, heads=2, kv_heads=2, mode="cross")
PADDING = torch.tensor([[True] * 5, [True, True, True, False, False]])
BOTH = [Location(seen="last", width=3), Location(seen="sum", width=7), Coverage()]


class TestLocation(AttentionPromises):
    variant = Location


class TestCoverage(AttentionPromises):
    variant = Coverage


# -- tools -----------------------------------------------------------------------------------------------------------


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer_of(*modifiers, core=None, moved=True):
    """Parameters are moved from their start, at which these modifiers do nothing."""
    torch.manual_seed(0)
    layer = token_mixer(core or Additive(width=16), modifiers, SHAPE).double().eval()
    if moved:
        with torch.no_grad():
            for each in layer.modifiers.parameters():
                each.add_(torch.randn_like(each))
    return layer


def steps_of(layer, x_BTD, source_BSD, mask=None):
    past, outs, maps = layer.nothing_seen(source_BSD), [], []
    for x_B1D in x_BTD.split(1, 1):
        mixed, _ = layer(x_B1D, mask or Mask(), None, source_BSD=source_BSD, past=past)
        past = past.then(mixed.weights)
        outs.append(mixed.out)
        maps.append(mixed.weights)
    return torch.cat(outs, 1), torch.cat(maps, 2)


def scores_of(layer, h):
    return (
        oracles.additive(layer.core.w_HKA[h], layer.core.u_HKA[h], layer.core.v_HA[h])
        if hasattr(layer.core, "w_HKA")
        else oracles.dot
    )


def by_loops(layer, x_BTD, source_BSD, keep_BS, told):
    """Each head of each row for itself, one step after another; `told` says what a key becomes by what was seen."""
    heads, size, kv_dim = SHAPE.heads, SHAPE.head_dim, layer.split[1]
    wq, wk, wv = layer.to_qkv.weight.split(layer.split)
    weights_BHTS = torch.zeros(len(x_BTD), heads, x_BTD.shape[1], source_BSD.shape[1], dtype=torch.float64)
    out_BTHK = torch.zeros(len(x_BTD), x_BTD.shape[1], heads, size, dtype=torch.float64)
    for b in range(len(x_BTD)):
        for h in range(heads):
            at, own = slice(size * h, size * (h + 1)), size * (h // (heads * size // kv_dim))
            q_TK, kv = x_BTD[b] @ wq[at].T, slice(own, own + size)
            k_SK, v_SK = source_BSD[b] @ wk[kv].T, source_BSD[b] @ wv[kv].T
            real = [j for j in range(len(k_SK)) if keep_BS[b, j]]
            last, total = [0.0] * len(k_SK), [0.0] * len(k_SK)
            for t, q_K in enumerate(q_TK):
                keys = {j: told(layer.modifiers[0], h, j, k_SK[j], last, total) for j in real}
                shares = oracles.softmax([scores_of(layer, h)(q_K, keys[j]) for j in real])
                last = [shares[real.index(j)] if j in real else 0.0 for j in range(len(k_SK))]
                total = [a + b for a, b in zip(total, last, strict=True)]
                weights_BHTS[b, h, t] = torch.tensor(last, dtype=torch.float64)
                out_BTHK[b, t, h] = sum(last[j] * v_SK[j] for j in real)
    return layer.to_out(out_BTHK.flatten(2)), weights_BHTS


def located(module, h, j, k_K, last, total):
    seen, k_K = last if module.seen == "last" else total, k_K.clone()
    for filter_W, u_K in zip(module.filters_HFW[h], module.u_HFK[h], strict=True):
        places = [j + w - len(filter_W) // 2 for w in range(len(filter_W))]
        found = sum(float(filter_W[w]) * seen[at] for w, at in enumerate(places) if 0 <= at < len(seen))
        k_K += found * u_K
    return k_K


def covered(module, h, j, k_K, last, total):
    often = 2.0 / (1.0 + math.exp(-sum(float(a * b) for a, b in zip(k_K, module.u_HK[h], strict=True))))
    return k_K + total[j] / often * module.w_HK[h]


# -- formulas --------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("core", [Additive(width=16), MultiHead(), GroupedQuery(kv_heads=1)])
@pytest.mark.parametrize("modifier", BOTH)
def test_each_step_scores_keys_that_know_what_earlier_steps_saw(core, modifier):
    layer, x, source = layer_of(modifier, core=core), numbers(2, 4, 8), numbers(2, 5, 8, seed=1)
    told = covered if isinstance(modifier, Coverage) else located
    found = steps_of(layer, x, source, Mask(padding=PADDING))
    assert_close(found, by_loops(layer, x, source, PADDING, told))


@torch.no_grad()
@pytest.mark.parametrize("modifier", BOTH)
def test_at_the_first_step_nothing_was_seen_and_later_it_matters(modifier):
    layer, plain = layer_of(modifier), layer_of()
    plain.load_state_dict(layer.state_dict(), strict=False)
    x, source = numbers(2, 4, 8), numbers(2, 5, 8, seed=1)
    whole = plain(x, Mask(), source_BSD=source)[0].out
    found, _ = steps_of(layer, x, source)
    assert_close(found[:, 0], whole[:, 0])
    assert ((found - whole)[:, 1:].abs().amax((0, 2)) > 1e-3).all()


@torch.no_grad()
@pytest.mark.parametrize("modifier", BOTH)
def test_both_begin_as_attention_without_them(modifier):
    layer, plain = layer_of(modifier, moved=False), layer_of()
    x, source = numbers(2, 4, 8), numbers(2, 5, 8, seed=1)
    plain.load_state_dict(layer.state_dict(), strict=False)
    assert_close(steps_of(layer, x, source)[0], plain(x, Mask(), source_BSD=source)[0].out)


@torch.no_grad()
@pytest.mark.parametrize("core", [MultiHead(), Linear()])
def test_heads_that_share_keys_have_pasts_of_their_own(core):
    shapes = (replace(SHAPE, heads=4, kv_heads=each) for each in (2, 4))
    grouped, repeated = (token_mixer(core, [BOTH[0]], each).double() for each in shapes)
    wq, *wkv = grouped.to_qkv.weight.split(grouped.split)
    twice = [each.unflatten(0, (2, -1)).repeat_interleave(2, 0).flatten(0, 1) for each in wkv]
    repeated.load_state_dict(grouped.state_dict() | {"to_qkv.weight": torch.cat((wq, *twice))})
    for each in (grouped, repeated):
        each.modifiers[0].u_HFK.copy_(numbers(*each.modifiers[0].u_HFK.shape))
    x, source = numbers(2, 4, 8), numbers(2, 5, 8, seed=1)
    assert_close(steps_of(grouped, x, source), steps_of(repeated, x, source))


@torch.no_grad()
def test_filters_of_zero_find_no_location():
    layer, plain = layer_of(BOTH[0]), layer_of()
    layer.modifiers[0].filters_HFW.zero_()
    plain.load_state_dict(layer.state_dict(), strict=False)
    x, source = numbers(2, 4, 8), numbers(2, 5, 8, seed=1)
    assert_close(steps_of(layer, x, source)[0], plain(x, Mask(), source_BSD=source)[0].out)


@torch.no_grad()
def test_what_is_found_moves_with_the_weights():
    module, nothing = layer_of(BOTH[0]).modifiers[0], torch.zeros(1, 2, 9, 4, dtype=torch.float64)
    found = [
        module.on_past(nothing, torch.eye(9).double()[at].expand(1, 2, 9), torch.zeros(1, 2, 9)) for at in range(9)
    ]
    assert (found[4][0, :, [3, 4, 5]] != 0.0).all()
    assert (found[4][0, :, [0, 1, 2, 6, 7, 8]] == 0.0).all()
    assert_close(found[5][:, :, 1:], found[4][:, :, :-1])


@pytest.mark.parametrize("modifier", BOTH)
def test_gradients_go_back_through_all_steps(modifier):
    layer, x, source = layer_of(modifier), numbers(1, 3, 8), numbers(1, 4, 8, seed=1)

    def function(*values):
        for (name, _), value in zip(names, values, strict=True):
            setattr(layer.modifiers[0], name, value)
        out, weights = steps_of(layer, x, source)
        return out, *layer.alignment_losses(weights, torch.ones(1, 3, dtype=torch.bool)).values()

    names = [*layer.modifiers[0].named_parameters()]
    values = [each.detach().clone().requires_grad_() for _, each in names]
    for name, _ in names:
        delattr(layer.modifiers[0], name)
    assert torch.autograd.gradcheck(function, values)


# -- the loss of coverage --------------------------------------------------------------------------------------------


def loss_of(weights_BHTS, keep_BT=None):
    keep_BT = torch.ones(len(weights_BHTS), weights_BHTS.shape[2], dtype=torch.bool) if keep_BT is None else keep_BT
    return Coverage(price=0.5).build(SHAPE).alignment_losses(weights_BHTS, keep_BT)["coverage"]


@pytest.mark.parametrize("length", [1, 2, 5])
def test_even_weights_repeat_themselves_at_every_step_but_the_first(length):
    assert_close(loss_of(torch.full((3, 2, length, 4), 0.25)), torch.tensor(0.5 * (length - 1) / length))


def test_who_looks_at_nothing_twice_pays_nothing_and_who_never_moves_pays_all():
    once, stays = torch.eye(4).expand(1, 2, 4, 4), torch.eye(4)[:1].expand(1, 2, 4, 4)
    assert loss_of(once) == 0.0
    assert_close(loss_of(stays), torch.tensor(0.5 * 3 / 4))


def test_the_loss_is_the_overlap_of_each_step_with_all_before_it():
    weights_BHTS, keep_BT = numbers(2, 2, 4, 5).softmax(-1), torch.tensor([[True] * 4, [True, True, False, False]])
    rows = []
    for b, steps in enumerate([4, 2]):
        total = 0.0
        for h in range(2):
            for t in range(steps):
                for j in range(5):
                    before = sum(float(weights_BHTS[b, h, each, j]) for each in range(t))
                    total += min(float(weights_BHTS[b, h, t, j]), before)
        rows.append(total / 2 / steps)
    assert float(loss_of(weights_BHTS, keep_BT)) == pytest.approx(0.5 * sum(rows) / 2)


# -- where they may stand --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modifier", [Location, Coverage])
def test_all_steps_at_once_are_refused(modifier):
    what = f"'{modifier.name}' looks at what earlier steps saw, and here all steps are taken at once. Use a backbone"
    with pytest.raises(Refused, match=what):
        layer_of(modifier())(numbers(1, 2, 8), Mask(), source_BSD=numbers(1, 3, 8))


@pytest.mark.parametrize("modifier", [Location, Coverage])
def test_a_core_that_shows_no_weights_is_refused(modifier):
    why = f"'{modifier.name}' reads the weights of earlier steps, and 'visual_sentinel' does not show them"
    assert contradiction(VisualSentinel, modifier) == why
    assert contradiction(Additive, modifier) == ""


@pytest.mark.parametrize("modifier", [Location, Coverage])
def test_only_a_model_that_goes_step_by_step_is_searched_with_them(modifier):
    for backbone in (Encoder, Decoder, EncoderDecoder):
        assert inadmissible(modifier, backbone.modes, frozenset({"padding"}), 9).startswith(f"{modifier.name} has no")
    assert inadmissible(modifier, Lstm.modes, frozenset({"padding"}), 9) == ""


def test_they_are_searched_with_cores_that_show_weights():
    variants = {each.name: each for each in (Additive, VisualSentinel, MultiHead, Location)}
    params = join(
        {"attention": variants, "backbone": {"lstm": Lstm}, "optimizer": {}, "schedule": {}, "technique": {}}, {}
    )
    when = {each.name: each.when for each in params}
    assert when["attention/location/use"] == {"attention/kind": ("additive", "multi_head")}
    assert set(when) >= {f"attention/location/{each}" for each in ("seen", "filters", "width")}


def test_their_cost_is_one_key_of_its_own_for_each_step_and_place():
    wide = replace(SHAPE, dim=64, heads=4, kv_heads=4)
    assert Coverage().cost(wide, 10).peak_bytes == 4 * 10 * 10 * 64
    found = Location(filters=4, width=3).cost(wide, 10)
    assert found.flops == 2 * (10 * 10 * 4) * 4 * (3 + 16)
    assert found.peak_bytes == 4 * (10 * 10 * 4) * (4 + 16)
