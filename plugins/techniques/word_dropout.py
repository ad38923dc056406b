"""Word dropout: a share of the words of each training text becomes the unknown word.

The model learns not to lean on single words, and the unknown word gets a meaning.

Shapes: B batch, L length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from deepmine_auto import Applied, Batch, Float, Technique, TrainingFacts


@dataclass(frozen=True, kw_only=True)
class WordDropout(Technique):
    """Replace each token by the unknown one with probability `share`; one token of each text is always spared."""

    name: ClassVar[str] = "word_dropout"
    source: ClassVar[str] = "arXiv:1511.06349"
    touches = frozenset({"input"})

    share: Annotated[float, Float(0.02, 0.4)] = 0.1

    def build(self, facts: TrainingFacts) -> Applied:
        """Make what changes the batches; it draws from the trial's generator."""
        return _Dropped(self.share, facts)


class _Dropped(Applied):
    def __init__(self, share: float, facts: TrainingFacts) -> None:
        self.share, self.facts = share, facts
        self.generator = facts.generator

    def on_batch(self, batch: Batch) -> Batch:
        """Return the batch with other tokens (B, L); padding stays padding."""
        device = self.generator.device
        drawn_BL = torch.rand(batch.tokens_BL.shape, generator=self.generator, device=device).to(batch.tokens_BL.device)
        words_BL = self.facts.words(batch)
        drawn_BL = drawn_BL.masked_fill(~words_BL, -1.0)
        drop_BL = (drawn_BL < self.share) & words_BL
        # The highest draw of a text is below the share only where all are: sparing it changes nothing else.
        drop_BL = drop_BL.scatter(1, drawn_BL.argmax(1, keepdim=True), False)
        return batch._replace(tokens_BL=batch.tokens_BL.masked_fill(drop_BL, self.facts.unknown))
