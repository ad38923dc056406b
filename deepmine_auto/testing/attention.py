"""What an attention variant promises, as tests to inherit:

    class TestMyAttention(AttentionPromises):
        variant = MyAttention

A core or a mixer is tested as it is; a modifier stands on softmax by its definition. A promise that needs what the
variant does not declare is skipped, with the reason. All sums are in float64.

Shapes: B batch, L length, S source length, D dim, H heads, G key-value heads, K dim of one head.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from deepmine_auto.contracts import AttentionMixer, AttentionModifier
from deepmine_auto.model.mask import Mask
from deepmine_auto.testing.attention_building import BuildingPromises
from deepmine_auto.testing.attention_export import ExportPromises
from deepmine_auto.testing.attention_forms import FormPromises
from deepmine_auto.testing.attention_hosts import HostPromises
from deepmine_auto.testing.attention_kit import few_examples
from deepmine_auto.testing.attention_masks import MaskPromises
from deepmine_auto.testing.attention_training import TrainingPromises
from deepmine_auto.testing.layers import (
    DIM,
    ROWS,
    SHAPE,
    Softmax,
    layer_of,
    lengths,
    masks,
    mixed_by,
    numbers,
    products_of,
    variants,
)


class AttentionPromises(ExportPromises, HostPromises, TrainingPromises, MaskPromises, FormPromises, BuildingPromises):
    """Inherit, name the variant, and pytest holds it to what it declares. The last base is tested first."""

    @few_examples
    @given(st.data())
    def test_shuffled_tokens_give_shuffled_outputs(self, data: st.DataObject) -> None:
        """Without positions, order is all that a shuffle changes."""
        self.needs(self.caps.position_free, "that it is free of positions")
        self.needs("bidirectional" in self.caps.modes, "the bidirectional mode")
        layer = layer_of(data.draw(variants(self.variant), "variant"), "bidirectional")
        x_BLD = numbers(ROWS, data.draw(lengths(self.caps), "length"), DIM)
        order = torch.randperm(x_BLD.shape[1], generator=torch.Generator().manual_seed(0))
        first, second = (mixed_by(layer, x, Mask()).out for x in (x_BLD[:, order], x_BLD))
        assert_close(first, second[:, order], rtol=1e-7, atol=1e-9)

    @few_examples
    @given(st.data())
    def test_the_neutral_setting_is_softmax(self, data: st.DataObject) -> None:
        """With the same projections, under any declared mask."""
        neutral = self.variant.neutral
        self.needs(neutral is not None, "a neutral setting")
        self.needs(not issubclass(self.variant, AttentionMixer), "projections that softmax could share")
        mode = data.draw(st.sampled_from(self.modes()), "mode")
        length = data.draw(lengths(self.caps), "length")
        mask, x_BLD = data.draw(masks(self.caps, mode, length)), numbers(ROWS, length, DIM)
        ours, softmax = (
            layer_of(self.variant(**neutral or {}), mode, moved=False),
            layer_of(Softmax(), mode, moved=False),
        )
        softmax.load_state_dict(ours.state_dict(), strict=False)
        assert_close(mixed_by(ours, x_BLD, mask).out, mixed_by(softmax, x_BLD, mask).out, rtol=1e-7, atol=1e-9)

    def test_what_is_computed_grows_no_faster_than_declared(self) -> None:
        """Counted in products, not timed; `caps.scaling` is the power of L."""
        self.needs(not issubclass(self.variant, AttentionModifier), "that it mixes by itself")
        lengths = (1024, 4096) if self.caps.scaling < 2.0 else (128, 512)
        mode, shape = self.modes()[0], replace(SHAPE, dim=8, heads=2, kv_heads=2, max_len=lengths[1])
        layer = layer_of(self.variant(), mode, shape=shape).float()
        small, large = (products_of(layer, torch.randn(1, each, 8), mode) for each in lengths)
        self.needs(small > 0, "products, which could be counted")
        exponent = math.log(large / small, lengths[1] / lengths[0])
        assert exponent < self.caps.scaling + 0.2, f"products grow with L ^ {exponent:.2f}, not {self.caps.scaling}"

    def test_the_declared_cost_grows_as_declared(self) -> None:
        """`cost` at long inputs grows with the power of L that `caps.scaling` names."""
        variant, far = self.variant(), 2**16
        shape = replace(variant.adapt(SHAPE), max_len=2 * far)
        for name, small, large in zip(
            ("flops", "bytes"), variant.cost(shape, far), variant.cost(shape, 2 * far), strict=True
        ):
            exponent = math.log2(large / small)
            assert abs(exponent - self.caps.scaling) < 0.2, (
                f"{name} grow with L ^ {exponent:.2f}, not {self.caps.scaling}"
            )
