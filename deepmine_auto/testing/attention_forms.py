"""That all forms of an attention variant are one function: fast or by definition, grouped or repeated, at once or token
by token.
Shapes: B batch, L length, S source length, D dim, H heads, G key-value heads, K dim of one head.
"""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from deepmine_auto.contracts import START, AttentionCore, AttentionMixer, Mode
from deepmine_auto.model.dense import DenseAttention, repeated
from deepmine_auto.model.mask import Mask
from deepmine_auto.testing.attention_kit import AttentionKit, few_examples
from deepmine_auto.testing.drawing import corners
from deepmine_auto.testing.layers import (
    DIM,
    HEADS,
    ROWS,
    layer_of,
    lengths,
    longest,
    masks,
    mixed_by,
    mixing_of,
    numbers,
    variants,
)


class FormPromises(AttentionKit):
    """Fast forms change nothing."""

    @few_examples
    @given(st.data())
    def test_the_fast_form_equals_the_definition(self, data: st.DataObject) -> None:
        """Outputs and gradients are the same whether weights are asked for or not."""
        self.needs_exact_weights()
        layer, mode = self.draw_layer(data)
        length = data.draw(lengths(self.caps), "length")
        self._compare(layer, data.draw(masks(self.caps, mode, length)), length)

    def test_the_fast_form_equals_the_definition_at_both_ends_of_every_range(self) -> None:
        """On one token, and on inputs that are long enough for blocks, which a few drawn examples may miss."""
        self.needs_exact_weights()
        for mode in self.modes():
            for layer in [layer_of(each, mode) for each in dict.fromkeys(corners(self.variant))]:
                for length in (1, longest(self.caps)):
                    self._compare(layer, Mask(causal=mode == "causal"), length)

    def _compare(self, layer: nn.Module, mask: Mask, length: int) -> None:
        if by_definition_alone(layer):
            return
        x_BLD, towards = numbers(ROWS, length, DIM).requires_grad_(), numbers(ROWS, length, DIM, seed=1)
        found = []
        for weights in (False, True):
            out = mixed_by(layer, x_BLD, mask, weights=weights).out
            found.append((out, *torch.autograd.grad((out * towards).sum(), x_BLD)))
        assert_close(found[0], found[1], rtol=1e-7, atol=1e-9)

    @few_examples
    @given(st.data())
    def test_weights_times_values_are_the_output(self, data: st.DataObject) -> None:
        """The weights that are shown are those that were used."""
        self.needs_exact_weights()
        self.needs(issubclass(self.variant, AttentionCore), "that it is a core, whose values are known")
        mode, length, source = self.draw_sizes(data)
        q, k, v = (numbers(ROWS, HEADS, n, 4, seed=n) for n in (length, source, source + 1))
        v = v[:, :, 1:]
        mixed = mixing_of(data.draw(variants(self.variant)))(
            q, k, v, data.draw(masks(self.caps, mode, length, source)), True
        )
        assert mixed.weights is not None
        assert mixed.weights.shape == (ROWS, HEADS, length, source)
        assert_close(mixed.weights @ v, mixed.out, rtol=1e-7, atol=1e-9)

    def draw_sizes(self, data: st.DataObject) -> tuple[Mode, int, int]:
        """Draw a mode with as many queries as keys, or others where the mode is cross."""
        mode = data.draw(st.sampled_from(sorted(self.caps.modes)), "mode")
        length = data.draw(lengths(self.caps), "length")
        return mode, length, data.draw(lengths(self.caps), "source") if mode == "cross" else length

    @few_examples
    @given(st.data())
    def test_rows_of_weights_sum_to_one(self, data: st.DataObject) -> None:
        """Or to zero, where a query sees nothing."""
        self.needs_exact_weights()
        self.needs(self.caps.normalized, "normalized weights")
        layer, mode = self.draw_layer(data)
        length = data.draw(lengths(self.caps), "length")
        mask = data.draw(masks(self.caps, mode, length))
        weights = mixed_by(layer, numbers(ROWS, length, DIM), mask, weights=True).weights
        assert weights is not None
        sums = weights.sum(-1)
        assert_close(sums[sums.abs() > 1e-9], torch.ones_like(sums[sums.abs() > 1e-9]), rtol=1e-6, atol=0.0)
        keep = mask.allowed(length, length)
        if keep is None:
            assert (sums.abs() > 1e-9).all(), "a row that sees tokens has no weights"

    @few_examples
    @given(st.data())
    def test_grouped_heads_equal_repeated_heads(self, data: st.DataObject) -> None:
        """Unrepeated keys and values give what repeated ones give."""
        self.needs(not issubclass(self.variant, AttentionMixer), "that it takes key-value heads from the host")
        mode, length, source = self.draw_sizes(data)
        groups = data.draw(st.sampled_from([1, 2]), "kv_heads")
        mask = data.draw(masks(self.caps, mode, length, source))
        q, k, v = numbers(ROWS, HEADS, length, 4), *numbers(2, ROWS, groups, source, 4, seed=1)
        mixing = mixing_of(data.draw(variants(self.variant)), groups)
        whole = mixing(q, repeated(k, HEADS), repeated(v, HEADS), mask, False)
        assert_close(mixing(q, k, v, mask, False).out, whole.out, rtol=1e-7, atol=1e-9)

    @few_examples
    @given(st.data())
    def test_one_token_at_a_time_equals_the_whole(self, data: st.DataObject) -> None:
        """The last query stands at the last key, so cached keys and values suffice."""
        self.needs(self.caps.decoding == "kv" and "causal" in self.caps.modes, "decoding with cached keys and values")
        mixing, length = mixing_of(data.draw(variants(self.variant))), data.draw(lengths(self.caps), "length")
        q, k, v = numbers(3, ROWS, HEADS, length, 4)
        at = length - data.draw(st.integers(1, length), "from the end")
        whole = mixing(q, k, v, Mask(causal=True), False).out[:, :, at]
        alone = mixing(q[:, :, at : at + 1], k[:, :, : at + 1], v[:, :, : at + 1], Mask(causal=True), False).out[
            :, :, 0
        ]
        assert_close(alone, whole, rtol=1e-7, atol=1e-9)

    @few_examples
    @given(st.data())
    def test_decoding_equals_the_whole_pass(self, data: st.DataObject) -> None:
        """Token by token, or some at a time, from the state that the call before returned."""
        self.needs(self.caps.decoding != "none" and "causal" in self.caps.modes, "decoding")
        layer = layer_of(data.draw(variants(self.variant), "variant"), "causal")
        x_BLD = numbers(ROWS, data.draw(lengths(self.caps, 2), "length"), DIM)
        first = x_BLD.shape[1] - data.draw(st.integers(1, x_BLD.shape[1] - 1), "one by one")
        state, found = START, []
        for part in (x_BLD[:, :first], *x_BLD[:, first : first + 3].split(1, 1)):
            mixed, state = layer(part, Mask(causal=True), state)
            found.append(mixed.out)
        decoded = torch.cat(found, 1)
        whole = mixed_by(layer, x_BLD, Mask(causal=True)).out[:, : decoded.shape[1]]
        assert_close(decoded, whole, rtol=1e-7, atol=1e-9)


def by_definition_alone(layer: nn.Module) -> bool:
    """Whether both forms are one computation, because nothing in the layer knows whether weights are asked for."""
    core = getattr(layer, "core", None)
    return isinstance(core, DenseAttention) and type(core).forward is DenseAttention.forward
