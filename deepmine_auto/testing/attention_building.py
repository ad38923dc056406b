"""That an attention variant can be built and trained: shapes, seeds, gradients, dtypes.

Shapes: B batch, L length, D dim.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call
from torch.testing import assert_close

from deepmine_auto.contracts import AttentionModifier, Mixed
from deepmine_auto.model.dense import hook_of
from deepmine_auto.model.guard import NEEDED_BY
from deepmine_auto.model.mask import Mask
from deepmine_auto.testing.attention_kit import AttentionKit, few_examples
from deepmine_auto.testing.layers import DIM, LONG, ROWS, SHAPE, TOLERANCE, layer_of, lengths, mixed_by, numbers

HOOKS = ("on_qk", "on_out", "losses", *NEEDED_BY)
"""What the host asks a modifier's module for."""


class BuildingPromises(AttentionKit):
    """It can be built and trained."""

    @few_examples
    @given(st.data())
    def test_every_range_can_be_drawn_and_built(self, data: st.DataObject) -> None:
        """Wherever the searched fields are drawn, outputs have the shape of inputs and are finite."""
        layer, mode = self.draw_layer(data)
        x_BLD = numbers(ROWS, data.draw(lengths(self.caps), "length"), DIM)
        out = mixed_by(layer, x_BLD, Mask(causal=mode == "causal")).out
        assert out.shape == x_BLD.shape
        assert out.isfinite().all()

    def test_a_modifier_does_what_a_modifier_is_asked_for(self) -> None:
        """Its module has a hook of the contract: one whose name is misspelt would never be called."""
        self.needs(issubclass(self.variant, AttentionModifier), "that it changes another")
        module = self.variant().build(SHAPE)
        assert any(hook_of(module, each) for each in HOOKS), f"it has none of {', '.join(HOOKS)}"

    def test_the_same_seed_gives_the_same_output(self) -> None:
        """A second call, and a second layer of the same seed, change no bit."""
        self.needs(self.caps.deterministic, "that it is deterministic")
        mode, x_BLD = self.modes()[0], numbers(ROWS, 7, DIM)
        mask = Mask(causal=mode == "causal")
        layer, twin = layer_of(self.variant(), mode), layer_of(self.variant(), mode)
        first, again, other = (mixed_by(each, x_BLD, mask).out for each in (layer, layer, twin))
        assert torch.equal(first, again)
        assert torch.equal(first, other)

    def test_gradients_are_those_of_the_function(self) -> None:
        """Of the input and of every learned parameter, against finite differences."""
        mode = self.modes()[0]
        layer = layer_of(self.variant(), mode, shape=replace(SHAPE, dim=8, heads=2, kv_heads=2))
        names = [name for name, _ in layer.named_parameters()]

        def function(x_BLD: Tensor, *values: Tensor) -> Tensor:
            called = (x_BLD, Mask(causal=mode == "causal"), None)
            mixed: Mixed = functional_call(layer, dict(zip(names, values, strict=True)), called)[0]
            return mixed.out

        assert torch.autograd.gradcheck(
            function, (numbers(1, 4, 8).requires_grad_(), *layer.parameters()), fast_mode=True
        )

    def test_every_declared_dtype_computes(self) -> None:
        """The dtype stays, and outputs are near those in float64."""
        mode, x_BLD = self.modes()[0], numbers(ROWS, 9, DIM)
        mask = Mask(causal=mode == "causal")
        exact = mixed_by(layer_of(self.variant(), mode), x_BLD, mask).out
        for name in sorted(self.caps.dtypes):
            dtype: torch.dtype = getattr(torch, name)
            out = mixed_by(layer_of(self.variant(), mode).to(dtype), x_BLD.to(dtype), mask).out
            assert out.dtype == dtype
            assert_close(out.double(), exact, rtol=TOLERANCE[name], atol=TOLERANCE[name])

    def test_half_precision_errs_at_most_twice_as_much_as_the_definition(self) -> None:
        """Both in the same dtype, against float32: what FlashAttention asks of itself."""
        self.needs_exact_weights()
        halves = sorted(self.caps.dtypes & {"bfloat16", "float16"})
        self.needs(bool(halves), "a half precision")
        mode, x_BLD = self.modes()[0], numbers(ROWS, LONG, DIM).float()
        mask = Mask(causal=mode == "causal")
        exact = mixed_by(layer_of(self.variant(), mode).float(), x_BLD, mask, weights=True).out
        for name in halves:
            dtype: torch.dtype = getattr(torch, name)
            layer = layer_of(self.variant(), mode).to(dtype)
            found = (mixed_by(layer, x_BLD.to(dtype), mask, weights=weights).out for weights in (False, True))
            fast, plain = ((each.float() - exact).abs().mean() for each in found)
            assert fast <= 2.0 * plain + 1e-6
