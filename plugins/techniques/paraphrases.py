"""Paraphrases: a training text may be read in other words that the user has for it, from back-translation or elsewhere.

Shapes: B batch, L length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from deepmine_auto import Applied, BadInput, Batch, Float, Technique, TrainingFacts


@dataclass(frozen=True, kw_only=True)
class Paraphrases(Technique):
    """With probability `share`, each time that it is drawn, a text is replaced by one of its paraphrases."""

    name: ClassVar[str] = "paraphrases"
    source: ClassVar[str] = "arXiv:1904.12848"
    touches = frozenset({"input"})
    learns_from = "paraphrases"
    one_answer = True

    share: Annotated[float, Float(0.1, 0.9)] = 0.5

    def build(self, facts: TrainingFacts) -> Applied:
        """Make what changes the batches; it draws from the trial's generator."""
        return _Reworded(self.share, facts)


class _Reworded(Applied):
    def __init__(self, share: float, facts: TrainingFacts) -> None:
        self.share, self.facts = share, facts

    def on_batch(self, batch: Batch) -> Batch:
        """Return the batch with other tokens (B, L) for some of its texts. Raises BadInput where it hides its rows."""
        if batch.rows_B is None:
            what = "A technique of this trial hides which rows a batch holds."
            raise BadInput(what, "Search paraphrases without it.")
        chance_B2 = torch.rand((len(batch.rows_B), 2), generator=self.facts.generator).tolist()
        # row by row a GPU would be waited for once a row: the batch comes from it and goes back as a whole
        each_B = zip(batch.rows_B.tolist(), chance_B2, batch.tokens_BL.cpu(), batch.keep_BL.cpu(), strict=True)
        texts = [self._words(row, use, which, tokens_L[keep_L]) for row, (use, which), tokens_L, keep_L in each_B]
        tokens_BL: Tensor = pad_sequence(texts, batch_first=True)
        keep_BL = torch.arange(tokens_BL.shape[1]) < torch.tensor([[len(each)] for each in texts])
        device = batch.tokens_BL.device
        return batch._replace(tokens_BL=tokens_BL.to(device), keep_BL=keep_BL.to(device))

    def _words(self, row: int, use: float, which: float, tokens_L: Tensor) -> Tensor:
        """The tokens of a row, or of one of its paraphrases, by two numbers from 0 to 1."""
        known = self.facts.paraphrases.get(row, ())
        if not known or use >= self.share:
            return tokens_L
        return torch.from_numpy(known[int(which * len(known))]).to(tokens_L)
