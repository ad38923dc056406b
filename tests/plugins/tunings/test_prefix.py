"""A prefix is what attention would be over more keys and values."""

import pytest
import torch

from deepmine_auto.model.mask import Mask
from deepmine_plugins.tunings.prefix import _Prefix

HEADS, LENGTH, DIM, SIZE = 4, 5, 8, 3
KEEP_BS = torch.tensor([[True] * 5, [True, True, True, False, False]])


def prefix(kv_heads=HEADS, gate=1.0):
    torch.manual_seed(0)
    made = _Prefix(HEADS, kv_heads, DIM, SIZE).double()
    with torch.no_grad():
        made.gate_H.fill_(gate)
    return made


def inputs(kv_heads=HEADS):
    torch.manual_seed(1)
    return [torch.randn(2, heads, LENGTH, DIM).double() for heads in (HEADS, kv_heads, kv_heads)]


def by_definition(made, q_BHLK, k_BGSK, v_BGSK, keep_BS, causal, bias):
    """Softmax over the prefix and the keys that a query may see, one query at a time."""
    out_BHLK, shared = torch.zeros_like(q_BHLK), HEADS // k_BGSK.shape[1]
    for b, h, i in torch.cartesian_prod(torch.arange(2), torch.arange(HEADS), torch.arange(LENGTH)).tolist():
        seen = [j for j in range(LENGTH) if keep_BS[b, j] and (j <= i or not causal)]
        keys = torch.cat((made.k_GPK[h // shared], k_BGSK[b, h // shared, seen]))
        values = torch.cat((made.v_GPK[h // shared], v_BGSK[b, h // shared, seen]))
        more = torch.cat((torch.zeros(SIZE).double(), bias[0, h, i, seen]))
        out_BHLK[b, h, i] = (keys @ q_BHLK[b, h, i] / DIM**0.5 + more).softmax(0) @ values
    return out_BHLK


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@torch.no_grad()
def test_with_its_gate_open_it_is_attention_over_a_prefix_that_everybody_sees(kv_heads, causal, biased):
    made, (q, k, v) = prefix(kv_heads), inputs(kv_heads)
    bias = torch.randn(1, HEADS, LENGTH, LENGTH).double() * biased
    mask = Mask(padding=KEEP_BS, causal=causal, bias=bias if biased else None)
    torch.testing.assert_close(made(q, k, v, mask), by_definition(made, q, k, v, KEEP_BS, causal, bias))


@torch.no_grad()
def test_each_head_has_a_gate_of_its_own():
    made, (q, k, v) = prefix(), inputs()
    made.gate_H.copy_(torch.tensor([0.0, 0.0, 1.0, 1.0]))
    mask = Mask(padding=KEEP_BS)
    found, shut, wide = made(q, k, v, mask), prefix(gate=0.0)(q, k, v, mask), prefix(gate=1.0)(q, k, v, mask)
    torch.testing.assert_close(found, torch.cat((shut[:, :2], wide[:, 2:]), 1))
    assert not torch.allclose(shut, wide)


def test_keys_and_values_learn_as_soon_as_the_gate_has_moved():
    made, (q, k, v) = prefix(gate=0.0), inputs()
    made(q, k, v, Mask()).square().sum().backward()
    assert made.gate_H.grad.abs().min() > 0
    assert made.k_GPK.grad.abs().max() == 0
    made = prefix(gate=0.1)
    made(q, k, v, Mask()).square().sum().backward()
    assert min(made.k_GPK.grad.abs().max(), made.v_GPK.grad.abs().max()) > 0


def test_it_computes_in_the_precision_of_the_layer():
    made, (q, k, v) = prefix().float(), (each.bfloat16() for each in inputs())
    assert made(q, k, v, Mask()).dtype == torch.bfloat16


def test_in_mixed_precision_it_goes_by_what_attention_returns():
    """Where positions are turned, queries are float32, and what attention makes of them is not."""
    made, (q, k, v) = prefix(gate=0.5).float(), (each.float() for each in inputs())
    expected = made(q, k, v, Mask())
    with torch.autocast("cpu", torch.bfloat16):
        found = made(q, k, v, Mask())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.02)
