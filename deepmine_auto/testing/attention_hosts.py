"""That an attention variant leaks nothing in the models that it may stand in.

Shapes: B batch, L length, D dim.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from torch.testing import assert_close

from deepmine_auto.contracts import Mode
from deepmine_auto.model.encoder_decoder import PairOfStacks
from deepmine_auto.model.recurrent import RecurrentPair
from deepmine_auto.model.stack import StackDesign, TransformerStack
from deepmine_auto.testing.attention_kit import AttentionKit
from deepmine_auto.testing.layers import LATER, ROWS, SHAPE, SYMBOLS, move, rows_of_tokens, set_seed


class HostPromises(AttentionKit):
    """It works in each host of its modes."""

    def host_of(self, mode: Mode) -> TransformerStack:
        """A stack of two layers of the variant, on softmax where it is a modifier."""
        set_seed()
        stack = TransformerStack(SYMBOLS, self.attend, replace(SHAPE, mode=mode), StackDesign(depth=2))
        return stack.double().eval()

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
        set_seed()
        self._compare_rows(PairOfStacks(SYMBOLS, self.attend, SHAPE, StackDesign(depth=1)).double().eval())

    def test_between_two_lstms_nothing_leaks(self) -> None:
        """With input feeding, where each step reads what the last one saw."""
        self.needs({"cross"} <= self.caps.modes and "padding" in self.caps.masks, "the cross mode")
        set_seed()
        pair = RecurrentPair(SYMBOLS, self.attend, SHAPE, StackDesign(depth=1), feeding=True)
        move(pair.crossing)
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
