"""That nothing leaks through an attention variant: what a mask hides stays hidden, and what is not declared is refused.

Shapes: B batch, L length, D dim, H heads.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from deepmine_auto.contracts import Caps
from deepmine_auto.model.guard import Refused
from deepmine_auto.model.mask import Mask
from deepmine_auto.testing.attention_kit import AttentionKit, few_examples
from deepmine_auto.testing.drawing import corners
from deepmine_auto.testing.layers import (
    DIM,
    HEADS,
    ROWS,
    disturbed,
    example_of,
    hiding,
    layer_of,
    lengths,
    longest,
    masks,
    mixed_by,
    numbers,
    variants,
)


class MaskPromises(AttentionKit):
    """Nothing leaks."""

    @few_examples
    @given(st.data())
    def test_padding_never_leaks(self, data: st.DataObject) -> None:
        """What stands at padded positions changes nothing at real ones."""
        self.needs("padding" in self.caps.masks, "padding")
        layer, mode = self.draw_layer(data)
        length = data.draw(lengths(self.caps, 2), "length")
        real = length - data.draw(st.integers(1, length - 1), "padded")
        padding = (torch.arange(length) < real).expand(ROWS, length)
        x_BLD, mask = numbers(ROWS, length, DIM), Mask(padding=padding, causal=mode == "causal")
        before, after = (mixed_by(layer, x, mask).out[:, :real] for x in (x_BLD, disturbed(x_BLD, slice(real, None))))
        assert_close(after, before, rtol=1e-7, atol=1e-9)

    def test_a_row_alone_is_what_it_is_beside_longer_ones(self) -> None:
        """However much padding follows it: what is switched by a length goes by that of the row. At both ends of every
        range; sums over more tokens may be added in another order, and that is all."""
        self.needs("padding" in self.caps.masks, "padding")
        length = longest(self.caps)
        for mode in self.modes():
            for layer in [layer_of(each, mode) for each in dict.fromkeys(corners(self.variant))]:
                for real in (1, 9, 100):
                    self._compare_alone(layer, mode == "causal", min(real, length), length)

    def _compare_alone(self, layer: nn.Module, causal: bool, real: int, length: int) -> None:
        x_BLD, padding = numbers(ROWS, length, DIM), torch.arange(length) < torch.tensor([[real], [length]])
        together = mixed_by(layer, x_BLD, Mask(padding=padding, causal=causal)).out
        for row, end in enumerate((real, length)):
            alone = mixed_by(layer, x_BLD[row : row + 1, :end], Mask(causal=causal)).out
            assert_close(together[row : row + 1, :end], alone, rtol=1e-7, atol=1e-9)

    @few_examples
    @given(st.data())
    def test_the_future_never_reaches_the_past(self, data: st.DataObject) -> None:
        """What stands later changes nothing before it."""
        self.needs("causal" in self.caps.modes, "the causal mode")
        layer = layer_of(data.draw(variants(self.variant), "variant"), "causal")
        length = data.draw(lengths(self.caps, 2), "length")
        changed_from = length - data.draw(st.integers(1, length - 1), "changed")
        x_BLD = numbers(ROWS, length, DIM)
        xs = (x_BLD, disturbed(x_BLD, slice(changed_from, None)))
        before, after = (mixed_by(layer, x, Mask(causal=True)).out[:, :changed_from] for x in xs)
        assert_close(after, before, rtol=1e-7, atol=1e-9)

    @few_examples
    @given(st.data())
    def test_what_a_mask_hides_never_reaches_the_output(self, data: st.DataObject) -> None:
        """Under any declared mask, and any two together, a token changes nothing for those that may not see it."""
        layer, mode = self.draw_layer(data)
        length = data.draw(lengths(self.caps, 2), "length")
        self._compare_blind(layer, data.draw(masks(self.caps, mode, length)), length)

    def test_each_declared_mask_hides_by_itself(self) -> None:
        """On few tokens in each mode and on many in the last, which a few drawn masks may leave out."""
        modes, (least, _) = self.modes(), corners(self.variant)
        few = [(mode, self.variant(), 7) for mode in modes]
        for mode, variant, length in (*few, (modes[-1], least, longest(self.caps))):
            layer = layer_of(variant, mode)
            for feature in sorted(self.caps.masks - {"causal"}):
                self._compare_blind(layer, replace(hiding(feature, length), causal=mode == "causal"), length)

    def _compare_blind(self, layer: nn.Module, mask: Mask, length: int) -> None:
        keep = mask.allowed(length, length)
        keep_BHLL = (torch.tensor(True) if keep is None else keep).expand(ROWS, HEADS, length, length)
        hidden_BHLL = ~keep_BHLL
        if mask.causal and hidden_BHLL.tril().any():  # one that the rest of the mask hides says more than the last one
            hidden_BHLL = hidden_BHLL.tril()
        at = int(hidden_BHLL.sum((0, 1, 2)).argmax())  # the token that fewest may see
        blind_BL = ~keep_BHLL[..., at].any(1)
        blind_BL[:, at] = False
        x_BLD = numbers(ROWS, length, DIM)
        before, after = (mixed_by(layer, x, mask).out for x in (x_BLD, disturbed(x_BLD, torch.tensor([at]))))
        assert_close(after[blind_BL], before[blind_BL], rtol=1e-7, atol=1e-9)

    def test_a_bias_is_not_dropped(self) -> None:
        """It changes the output."""
        self.needs("bias" in self.caps.masks, "bias")
        mode, x_BLD = self.modes()[0], numbers(ROWS, 6, DIM)
        layer, bias = layer_of(self.variant(), mode), numbers(1, 1, 6, 6, seed=1)
        plain, biased = (mixed_by(layer, x_BLD, Mask(causal=mode == "causal", bias=each)).out for each in (None, bias))
        assert (plain - biased).abs().max() > 1e-6

    def test_undeclared_modes_and_mask_features_are_refused(self) -> None:
        """By the host, before anything is computed."""
        mode = self.modes()[0]
        layer = layer_of(self.variant(), mode)
        everything = Caps.everywhere()
        for feature in sorted(everything.masks - self.caps.masks):
            with pytest.raises(Refused, match=feature):
                mixed_by(layer, numbers(ROWS, 5, DIM), example_of(feature, 5))
        for other in sorted(everything.modes - self.caps.modes):
            with pytest.raises(Refused, match=other):
                layer_of(self.variant(), other)

    @few_examples
    @given(st.data())
    def test_rows_that_see_nothing_stay_finite(self, data: st.DataObject) -> None:
        """Outputs and gradients, where a whole row is padding."""
        self.needs("padding" in self.caps.masks, "padding")
        layer, mode = self.draw_layer(data)
        length = data.draw(lengths(self.caps), "length")
        padding = torch.ones(ROWS, length, dtype=torch.bool)
        padding[0] = False
        x_BLD = numbers(ROWS, length, DIM).requires_grad_()
        out = mixed_by(layer, x_BLD, Mask(padding=padding, causal=mode == "causal")).out
        (gradient,) = torch.autograd.grad(out.square().sum(), x_BLD)
        assert out.isfinite().all()
        assert gradient.isfinite().all()
