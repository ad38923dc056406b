"""Token swap: some tokens of each training text change places, so that the model learns not to lean on their order.

Shapes: B batch, L length, P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from deepmine_auto import Applied, BadInput, Batch, Float, Technique, TrainingFacts


@dataclass(frozen=True, kw_only=True)
class TokenSwap(Technique):
    """The tokens of a text are paired by chance, and each pair is exchanged with probability `share`."""

    name: ClassVar[str] = "token_swap"
    source: ClassVar[str] = "arXiv:1901.11196"
    touches = frozenset({"input"})
    one_answer = True

    share: Annotated[float, Float(0.02, 0.3)] = 0.1

    def build(self, facts: TrainingFacts) -> Applied:
        """Make what changes the batches; it draws from the trial's generator."""
        return _Swapped(self.share, facts)


class _Swapped(Applied):
    def __init__(self, share: float, facts: TrainingFacts) -> None:
        self.share, self.facts = share, facts
        self.generator = facts.generator

    def on_batch(self, batch: Batch) -> Batch:
        """Return the batch with the tokens (B, L) of each text in another order. Raises BadInput where each token has
        an answer of its own."""
        if batch.targets.ndim > 1:
            raise BadInput("Tokens with answers of their own cannot be exchanged.", "Leave out token_swap.")
        one_BP, other_BP, swap_BP = self._pairs(self.facts.words(batch))
        ones_BP, others_BP = batch.tokens_BL.gather(1, one_BP), batch.tokens_BL.gather(1, other_BP)
        half_BL = batch.tokens_BL.scatter(1, one_BP, torch.where(swap_BP, others_BP, ones_BP))
        return batch._replace(tokens_BL=half_BL.scatter(1, other_BP, torch.where(swap_BP, ones_BP, others_BP)))

    def _pairs(self, words_BL: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where the two tokens of each pair stand, (B, P), and whether they are exchanged."""
        order_BL = self._drawn(words_BL).masked_fill(~words_BL, 2.0).argsort(1)  # what is no word comes last
        pairs = words_BL.shape[1] // 2
        one_BP, other_BP = order_BL[:, 0 : 2 * pairs : 2], order_BL[:, 1 : 2 * pairs : 2]
        swap_BP = self._drawn(other_BP) < self.share
        return one_BP, other_BP, swap_BP & words_BL.gather(1, other_BP)

    def _drawn(self, like: Tensor) -> Tensor:
        return torch.rand(like.shape, generator=self.generator, device=self.generator.device).to(like.device)
