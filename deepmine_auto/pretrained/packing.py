"""Texts of a batch side by side in one row, where a pretrained model allows it: less of what it reads is padding.

No text looks at its neighbours, and each counts its words from the beginning, so that a model says of it what it says
of the text alone (arXiv:2107.02027). Whoever asks sees a padded batch, as ever.

Shapes: B batch, L length, R packed rows, N tokens of a batch, D dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from deepmine_auto.pretrained.memory import frozen_blocks
from deepmine_auto.pretrained.parts import alike, asked, blocks_of
from deepmine_auto.pretrained.positions import Positions
from deepmine_auto.training.ends import out_of_memory

if TYPE_CHECKING:
    from deepmine_auto.pretrained.stack import PretrainedStack
    from deepmine_auto.training.batching import Columns

NO_TEXT = -1
"""Stands where a packed row is empty; such places look at each other, as who looks at nothing has no answer."""


class Laid(NamedTuple):
    """Where the tokens of a batch stand among the places of packed rows, which are as long as the batch is."""

    keep_BL: Tensor
    at_N: Tensor
    rows: int

    @classmethod
    def out(cls, keep_BL: Tensor) -> Laid:
        """Find a place for each text, from the left of what is free."""
        begin_B, rows = side_by_side(keep_BL.sum(1).tolist(), keep_BL.shape[1])
        begin_B1 = torch.tensor(begin_B, device=keep_BL.device)[:, None]
        return cls(keep_BL, (begin_B1 + keep_BL.cumsum(1) - 1)[keep_BL], rows)

    def packed(self, each_BL: Tensor, empty: int) -> Tensor:
        """What belongs to tokens, a number (B, L) or a vector (B, L, D), in packed rows (R, L) or (R, L, D)."""
        _, length, *dim = each_BL.shape
        flat = each_BL.new_full((self.rows * length, *dim), empty)
        flat[self.at_N] = each_BL[self.keep_BL]
        return flat.view(self.rows, length, *dim)

    def apart(self, said_RLD: Tensor) -> Tensor:
        """What is said of packed rows, by text (B, L, D), zero for padding."""
        out_BLD = said_RLD.new_zeros(*self.keep_BL.shape, said_RLD.shape[-1])
        return out_BLD.masked_scatter(self.keep_BL[..., None], said_RLD.flatten(0, 1).index_select(0, self.at_N))


@dataclass(frozen=True)
class Packing:
    """How texts are packed for a model: where it counts from, whether its words look back only, and the length up to
    which that was tried out."""

    positions: Positions
    causal: bool
    padding: int
    longest: int

    def read(self, stack: PretrainedStack, tokens_BL: Tensor, keep_BL: Tensor) -> Tensor | None:
        """What a model says of texts (B, L, D), zero for padding; None where packing would save no row, or a text is
        longer than any that was tried out. What the stack remembers of them is packed too."""
        if tokens_BL.shape[1] > self.longest:
            return None
        laid = Laid.out(keep_BL)
        if laid.rows == len(tokens_BL):
            return None
        text_BL = torch.arange(len(tokens_BL), device=keep_BL.device)[:, None].expand_as(tokens_BL)
        given = {
            "input_ids": laid.packed(tokens_BL, self.padding),
            "attention_mask": self._seen(laid.packed(text_BL, NO_TEXT)),
        }
        if self.positions.told:
            given["position_ids"] = laid.packed(self.positions.of(tokens_BL), self.positions.padding or 0)
        if stack.given is not None:
            stack.given = laid.packed(stack.given, 0)
        return laid.apart(stack.model(**given).last_hidden_state)

    def _seen(self, text_RL: Tensor) -> Tensor:
        """Who looks at whom, (R, 1, L, L)."""
        same_RLL = text_RL[:, :, None] == text_RL[:, None, :]
        return (same_RLL.tril() if self.causal else same_RLL)[:, None]


def side_by_side(lengths: Sequence[int], width: int) -> tuple[list[int], int]:
    """Where each text begins among rows of `width` that are laid end to end, and how many rows there are: the longest
    goes first, and each into the first row that has room."""
    begin, taken = [0] * len(lengths), list[int]()
    for text in sorted(range(len(lengths)), key=lambda each: -lengths[each]):
        row = next((row for row, used in enumerate(taken) if used + lengths[text] <= width), len(taken))
        if row == len(taken):
            taken.append(0)
        begin[text] = row * width + taken[row]
        taken[row] += lengths[text]
    return begin, len(taken)


def pack(stack: Any, columns: Columns) -> None:
    """Let a pretrained stack that packs read texts side by side while it trains, if it says of three of these rows, of
    which two stand side by side, what it says of them alone. Those with windows of their own do not, nor does one with
    vectors before the words. Any other module computes as ever."""
    rows = _three(columns.lengths)
    if rows is None or not getattr(stack, "packs", False) or _all_is_remembered(stack):
        return
    batch = columns.batch(rows, next(stack.parameters()).device)
    positions = Positions(stack.model)
    longest = int(columns.lengths.max())
    both = (Packing(positions, causal, stack.padding, longest) for causal in (False, True))
    stack.packing = next((each for each in both if _agrees(stack, each, batch.tokens_BL, batch.keep_BL)), None)


def _all_is_remembered(stack: PretrainedStack) -> bool:
    """Whether no block computes anything."""
    return stack.memory is not None and frozen_blocks(stack.model) == len(blocks_of(stack.model))


def _three(lengths: np.ndarray) -> list[int] | None:
    """The longest row, and the longest that has room beside the shortest, which is the third; None where none has."""
    order = np.argsort(lengths, kind="stable")
    beside = order[1:-1][lengths[order[1:-1]] <= lengths[order[-1]] - lengths[order[0]]]
    return [int(order[-1]), int(beside[-1]), int(order[0])] if len(beside) else None


def _agrees(stack: PretrainedStack, packing: Packing, tokens_BL: Tensor, keep_BL: Tensor) -> bool:
    ids_BL = tokens_BL.masked_fill(~keep_BL, stack.padding)
    with asked(stack):
        alone_BLD = stack(tokens_BL, keep_BL).out
        try:
            packed_BLD = packing.read(stack, ids_BL, keep_BL)
        except Exception as error:  # each model has its own way of not taking such a mask
            if out_of_memory(error):
                raise
            return False
    return packed_BLD is not None and alike(packed_BLD[keep_BL], alone_BLD[keep_BL])
