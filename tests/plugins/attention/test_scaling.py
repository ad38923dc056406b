"""What a variant computes grows as it declares, counted in operations rather than timed."""

import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from deepmine_auto import AttentionShape, Mask
from deepmine_plugins.attention.linear import Linear
from deepmine_plugins.attention.multi_head import MultiHead
from deepmine_plugins.attention.sliding_window import SlidingWindow

SHAPE = AttentionShape(dim=16, heads=2, kv_heads=2)


def operations(variant, length: int, mask: Mask) -> int:
    q, k, v = torch.randn(3, 1, 2, length, 8, requires_grad=True)
    # the counter knows the products of the plain kernel, not the fused one
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        variant.build(SHAPE)(q, k, v, mask, weights=False).out.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("variant", [SlidingWindow(window=16), Linear()])
def test_four_times_the_length_takes_four_times_the_operations(variant, causal):
    small, large = (operations(variant, length, Mask(causal=causal)) for length in (1024, 4096))
    assert math.log2(large / small) / 2 == pytest.approx(variant.caps.scaling, abs=0.05)


def test_an_input_shorter_than_the_window_costs_what_softmax_costs():
    assert operations(SlidingWindow(window=64), 65, Mask()) == operations(MultiHead(), 65, Mask())
