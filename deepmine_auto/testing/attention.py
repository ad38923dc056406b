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
from typing import ClassVar

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close

from deepmine_auto.contracts import (
    START,
    Attention,
    AttentionCore,
    AttentionMixer,
    AttentionModifier,
    AttentionShape,
    Caps,
    Mixed,
    Mode,
)
from deepmine_auto.model.dense import repeated
from deepmine_auto.model.encoder_decoder import PairOfStacks
from deepmine_auto.model.guard import Refused
from deepmine_auto.model.mask import Mask
from deepmine_auto.model.multi_head import token_mixer
from deepmine_auto.model.recurrent import RecurrentPair
from deepmine_auto.model.stack import StackDesign, TransformerStack
from deepmine_auto.testing.drawing import corners, drawn
from deepmine_auto.testing.layers import (
    DIM,
    HEADS,
    LATER,
    LONG,
    ROWS,
    SHAPE,
    SYMBOLS,
    TOLERANCE,
    Softmax,
    disturbed,
    example_of,
    hiding,
    layer_of,
    lengths,
    masks,
    mixed_by,
    mixing_of,
    numbers,
    products_of,
    rows_of_tokens,
)

few_examples = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],  # a smaller example would say no more, and takes half a minute
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
)


class AttentionPromises:
    """Inherit, name the variant, and pytest holds it to what it declares."""

    variant: ClassVar[type[Attention]]

    @property
    def caps(self) -> Caps:
        """What the variant declares."""
        return self.variant.caps

    def needs(self, declared: bool, what: str) -> None:
        """Skip a promise that the variant does not give."""
        if not declared:
            pytest.skip(f"{self.variant.name} does not declare {what}")

    def needs_exact_weights(self) -> None:
        """Skip a promise about the weight matrix where there is none."""
        self.needs(self.caps.weights == "exact", "exact weights")

    def modes(self) -> list[Mode]:
        """The declared modes in which tokens look at each other."""
        declared: list[Mode] = [mode for mode in ("bidirectional", "causal") if mode in self.caps.modes]
        self.needs(bool(declared), "a mode of self-attention")
        return declared

    def draw_layer(self, data: st.DataObject) -> tuple[nn.Module, Mode]:
        """Draw fields and a mode, and build."""
        mode = data.draw(st.sampled_from(self.modes()), "mode")
        return layer_of(data.draw(drawn(self.variant), "variant"), mode), mode

    # -- it can be built and trained

    @few_examples
    @given(st.data())
    def test_every_range_can_be_drawn_and_built(self, data: st.DataObject) -> None:
        """Wherever the searched fields are drawn, outputs have the shape of inputs and are finite."""
        layer, mode = self.draw_layer(data)
        x_BLD = numbers(ROWS, data.draw(lengths(self.caps), "length"), DIM)
        out = mixed_by(layer, x_BLD, Mask(causal=mode == "causal")).out
        assert out.shape == x_BLD.shape
        assert out.isfinite().all()

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

    # -- fast forms change nothing

    @few_examples
    @given(st.data())
    def test_the_fast_form_equals_the_definition(self, data: st.DataObject) -> None:
        """Outputs and gradients are the same whether weights are asked for or not."""
        self.needs_exact_weights()
        layer, mode = self.draw_layer(data)
        length = data.draw(lengths(self.caps), "length")
        self._compare(layer, data.draw(masks(self.caps, mode, length)), length)

    def test_the_fast_form_equals_the_definition_at_both_ends_of_every_range(self) -> None:
        """On inputs that are long enough for blocks, which a few drawn examples may miss."""
        self.needs_exact_weights()
        length = LONG if self.caps.max_len is None else min(LONG, self.caps.max_len)
        for mode in self.modes():
            for variant in corners(self.variant):
                self._compare(layer_of(variant, mode), Mask(causal=mode == "causal"), length)

    def _compare(self, layer: nn.Module, mask: Mask, length: int) -> None:
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
        mixed = mixing_of(data.draw(drawn(self.variant)))(
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
        mixing = mixing_of(data.draw(drawn(self.variant)), groups)
        whole = mixing(q, repeated(k, HEADS), repeated(v, HEADS), mask, False)
        assert_close(mixing(q, k, v, mask, False).out, whole.out, rtol=1e-7, atol=1e-9)

    @few_examples
    @given(st.data())
    def test_one_token_at_a_time_equals_the_whole(self, data: st.DataObject) -> None:
        """The last query stands at the last key, so cached keys and values suffice."""
        self.needs(self.caps.decoding == "kv" and "causal" in self.caps.modes, "decoding with cached keys and values")
        mixing, length = mixing_of(data.draw(drawn(self.variant))), data.draw(lengths(self.caps), "length")
        q, k, v = numbers(3, ROWS, HEADS, length, 4)
        at = data.draw(st.integers(0, length - 1), "at")
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
        layer = layer_of(data.draw(drawn(self.variant), "variant"), "causal")
        x_BLD = numbers(ROWS, data.draw(lengths(self.caps, 2), "length"), DIM)
        first = data.draw(st.integers(1, x_BLD.shape[1] - 1), "first")
        state, found = START, []
        for part in (x_BLD[:, :first], *x_BLD[:, first : first + 6].split(1, 1)):
            mixed, state = layer(part, Mask(causal=True), state)
            found.append(mixed.out)
        decoded = torch.cat(found, 1)
        whole = mixed_by(layer, x_BLD, Mask(causal=True)).out[:, : decoded.shape[1]]
        assert_close(decoded, whole, rtol=1e-7, atol=1e-9)

    # -- nothing leaks

    @few_examples
    @given(st.data())
    def test_padding_never_leaks(self, data: st.DataObject) -> None:
        """What stands at padded positions changes nothing at real ones."""
        self.needs("padding" in self.caps.masks, "padding")
        layer, mode = self.draw_layer(data)
        length = data.draw(lengths(self.caps, 2), "length")
        real = data.draw(st.integers(1, length - 1), "real tokens")
        padding = (torch.arange(length) < real).expand(ROWS, length)
        x_BLD, mask = numbers(ROWS, length, DIM), Mask(padding=padding, causal=mode == "causal")
        before, after = (mixed_by(layer, x, mask).out[:, :real] for x in (x_BLD, disturbed(x_BLD, slice(real, None))))
        assert_close(after, before, rtol=1e-7, atol=1e-9)

    @few_examples
    @given(st.data())
    def test_the_future_never_reaches_the_past(self, data: st.DataObject) -> None:
        """What stands later changes nothing before it."""
        self.needs("causal" in self.caps.modes, "the causal mode")
        layer = layer_of(data.draw(drawn(self.variant), "variant"), "causal")
        length = data.draw(lengths(self.caps, 2), "length")
        changed_from = data.draw(st.integers(1, length - 1), "changed from")
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
        """What a few drawn masks may leave out."""
        for mode in self.modes():
            layer = layer_of(self.variant(), mode)
            for feature in sorted(self.caps.masks - {"causal"}):
                self._compare_blind(layer, replace(hiding(feature, 7), causal=mode == "causal"), 7)

    def _compare_blind(self, layer: nn.Module, mask: Mask, length: int) -> None:
        keep = mask.allowed(length, length)
        keep_BHLL = (torch.tensor(True) if keep is None else keep).expand(ROWS, HEADS, length, length)
        at = int(keep_BHLL.sum((0, 1, 2)).argmin())  # the token that fewest may see
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

    # -- hosts

    def host_of(self, mode: Mode) -> TransformerStack:
        """A stack of two layers of the variant, on softmax where it is a modifier."""
        torch.manual_seed(0)
        stack = TransformerStack(SYMBOLS, self._attend, replace(SHAPE, mode=mode), StackDesign(depth=2))
        return stack.double().eval()

    def _attend(self, shape: AttentionShape) -> nn.Module:
        variant = self.variant()
        on = (Softmax(), [variant]) if isinstance(variant, AttentionModifier) else (variant, [])
        return token_mixer(*on, shape)

    def test_in_an_encoder_padding_is_not_seen(self) -> None:
        """Whatever stands at padded places."""
        self.needs({"bidirectional"} <= self.caps.modes and "padding" in self.caps.masks, "to be in an encoder")
        self._compare_rows(self.host_of("bidirectional"), rows=1)

    def test_in_a_decoder_nothing_later_is_seen(self) -> None:
        """Neither what comes later nor padding; and decoding, where it is declared, equals the whole pass."""
        self.needs({"causal"} <= self.caps.modes and {"padding", "causal"} <= self.caps.masks, "to be in a decoder")
        stack = self.host_of("causal")
        self._compare_rows(stack)
        if self.caps.decoding == "none":
            return
        tokens_BL, _, keep_BL = rows_of_tokens()
        first, state = stack.decode(tokens_BL[:, :4])
        rest, _ = stack.decode(tokens_BL[:, 4:], state)
        whole = stack(tokens_BL, torch.ones_like(keep_BL)).out
        assert_close(torch.cat((first, rest), 1), whole, rtol=1e-7, atol=1e-9)

    def test_between_encoder_and_decoder_nothing_leaks(self) -> None:
        """No token of the target sees a later one, and padding is not seen."""
        needed: set[Mode] = {"bidirectional", "causal", "cross"}
        self.needs(needed <= self.caps.modes and {"padding", "causal"} <= self.caps.masks, "all three modes")
        torch.manual_seed(0)
        self._compare_rows(PairOfStacks(SYMBOLS, self._attend, SHAPE, StackDesign(depth=1)).double().eval())

    def test_between_two_lstms_nothing_leaks(self) -> None:
        """With input feeding, where each step reads what the last one saw."""
        self.needs({"cross"} <= self.caps.modes and "padding" in self.caps.masks, "the cross mode")
        torch.manual_seed(0)
        pair = RecurrentPair(SYMBOLS, self._attend, SHAPE, StackDesign(depth=1), feeding=True)
        self._compare_rows(pair.double().eval())
        tokens_BL, _, keep_BL = rows_of_tokens()
        together, alone = pair(tokens_BL, keep_BL).out[1:], pair(tokens_BL[1:], keep_BL[1:]).out
        assert_close(together, alone, rtol=1e-7, atol=1e-9)

    def _compare_rows(self, host: nn.Module, rows: int = ROWS) -> None:
        tokens_BL, others_BL, keep_BL = rows_of_tokens()
        one, other = (host(each, keep_BL).out for each in (tokens_BL, others_BL))
        for row, later in enumerate(LATER[:rows]):
            assert one[row, :later].abs().sum() > 0
            assert_close(one[row, :later], other[row, :later], rtol=1e-7, atol=1e-9)

    # -- what else it says of itself

    @few_examples
    @given(st.data())
    def test_shuffled_tokens_give_shuffled_outputs(self, data: st.DataObject) -> None:
        """Without positions, order is all that a shuffle changes."""
        self.needs(self.caps.position_free, "that it is free of positions")
        self.needs("bidirectional" in self.caps.modes, "the bidirectional mode")
        layer = layer_of(data.draw(drawn(self.variant), "variant"), "bidirectional")
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
