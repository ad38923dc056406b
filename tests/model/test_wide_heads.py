"""Heads of any width keep CUDA's kernels. There is no GPU here: what they would be given is looked at, and computed on
the CPU."""

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F
from torch.testing import assert_close

from deepmine_auto import Mask
from deepmine_auto.model.softmax import fused_softmax, widened_softmax

PADDING = torch.arange(40) < torch.tensor([[40], [23]])
BIAS = torch.randn(1, 4, 40, 40, generator=torch.Generator().manual_seed(9))
MASKS = [Mask(), Mask(causal=True), Mask(padding=PADDING), Mask(padding=PADDING, bias=BIAS)]


def inputs(dims, dims_of_values=None):
    rng = torch.Generator().manual_seed(0)
    shapes = ((4, dims), (2, dims), (2, dims_of_values or dims))
    return [torch.randn(2, heads, 40, each, generator=rng).requires_grad_() for heads, each in shapes]


@pytest.mark.parametrize("mask", MASKS, ids=["all", "causal", "padding", "bias"])
@pytest.mark.parametrize("dims", [(1, 1), (8, 9), (17, 17), (10, 4)])
def test_zeros_behind_a_head_change_neither_results_nor_gradients(dims, mask):
    one, other = inputs(*dims), inputs(*dims)
    expected, found = fused_softmax(*one, mask), widened_softmax(*other, mask)
    assert_close(found, expected, rtol=0, atol=1e-6)
    for out in (expected, found):
        out.square().sum().backward()
    for left, right in zip(one, other, strict=True):
        assert_close(left.grad, right.grad, rtol=1e-5, atol=1e-5)


@pytest.fixture
def given(monkeypatch):
    """The widths of queries, keys and values that torch's kernel is given, and the scale."""
    found = []

    def seen(q, k, v, *, scale=None, **_):
        found.append(([each.shape[-1] for each in (q, k, v)], scale))
        return torch.empty(*q.shape[:-1], v.shape[-1])

    monkeypatch.setattr(F, "scaled_dot_product_attention", seen)
    return found


def asked(dims, device):
    with FakeTensorMode():
        q, k, v = (torch.empty(2, 4, 40, dims, device=device) for _ in range(3))
        return fused_softmax(q, k, v, Mask(causal=True)).shape


def test_on_cuda_a_head_is_as_wide_as_its_kernels_want(given):
    assert asked(17, "cuda") == (2, 4, 40, 17)
    assert given == [([24, 24, 24], 17**-0.5)]


@pytest.mark.parametrize(("dims", "device"), [(16, "cuda"), (17, "cpu")])
def test_nothing_else_is_copied(given, dims, device):
    assert asked(dims, device) == (2, 4, 40, dims)
    assert given == [([dims] * 3, None)]
