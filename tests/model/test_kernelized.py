"""Sums of features over many keys: in float16 too, which knows no number above 65504."""

import pytest
import torch
from torch.testing import assert_close

from deepmine_auto import Mask, kernel_attention

LENGTH = 4096
MASKS = [Mask(), Mask(causal=True), Mask(padding=torch.arange(LENGTH)[None] < 4000)]


def inputs(dtype=torch.float32):
    """Features of which some thousand are more than float16 can count, and values with a mean that is not zero."""
    rng = torch.Generator().manual_seed(0)
    phi_q, phi_k, v = (torch.rand(1, heads, LENGTH, 16, generator=rng) + 1.0 for heads in (2, 1, 1))
    return phi_q.to(dtype), phi_k.to(dtype), v.to(dtype)


@pytest.mark.parametrize("mask", MASKS, ids=["all", "causal", "padding"])
def test_in_float16_nothing_is_lost(mask):
    found = kernel_attention(*inputs(torch.float16), mask).out
    assert found.dtype == torch.float16
    assert_close(found.float(), kernel_attention(*inputs(), mask).out, rtol=5e-3, atol=0)


@pytest.mark.parametrize("mask", MASKS, ids=["all", "causal", "padding"])
def test_in_mixed_precision_of_float16_nothing_is_lost_and_gradients_are_finite(mask):
    leaves = [each.requires_grad_() for each in inputs()]
    with torch.autocast("cpu", torch.float16):
        found = kernel_attention(*leaves, mask).out
    assert found.dtype == torch.float16
    assert_close(found.float(), kernel_attention(*inputs(), mask).out, rtol=5e-3, atol=0)
    found.float().mean().backward()
    assert all(each.grad.isfinite().all() for each in leaves)


def test_weights_in_float16_are_shares():
    phi_q, phi_k, v = inputs(torch.float16)
    weights = kernel_attention(phi_q[:, :, :8], phi_k, v, Mask(), weights=True).weights
    assert_close(weights.float().sum(-1), torch.ones(1, 2, 8), rtol=5e-3, atol=0)


def test_bfloat16_which_has_larger_numbers_stays():
    products = []

    class Products(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if func in (torch.Tensor.matmul, torch.Tensor.__matmul__):
                products.append(out.dtype)
            return out

    with torch.autocast("cpu", torch.bfloat16), Products():
        kernel_attention(*inputs(), Mask())
    assert {*products} == {torch.bfloat16}
