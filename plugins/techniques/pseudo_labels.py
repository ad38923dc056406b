"""Pseudo-labels: of a text without label the model's own answer is learned, where it is sure.

Shapes: B batch, L length, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from deepmine_auto import Applied, Batch, Float, Step, Technique, TrainingFacts

from .focal_loss import of_classes

RISE = 0.3
"""The share of the training in which the weight rises evenly from nothing: at first the model knows nothing."""


@dataclass(frozen=True, kw_only=True)
class PseudoLabels(Technique):
    """In each step learn a batch of rows without labels beside the one with: the model answers them whole and without
    dropout, and where an answer has probability `sure` or more, it is learned as a label of the row with a `share` of
    its words hidden, `weight` times. A step takes a good two times as long. This is FixMatch with hidden words instead
    of changed pictures. Where targets are no classes, nothing is changed."""

    name: ClassVar[str] = "pseudo_labels"
    source: ClassVar[str] = "arXiv:2001.07685"
    touches = frozenset({"loss"})
    learns_from = "unlabelled"
    one_answer = True

    weight: Annotated[float, Float(0.1, 2.0, log=True)] = 0.5
    sure: Annotated[float, Float(0.6, 0.98)] = 0.9
    share: Annotated[float, Float(0.05, 0.4)] = 0.15

    def build(self, facts: TrainingFacts) -> Applied:
        """Put it to work; it draws from the trial's generator."""
        return _Learned(self, facts)

    def work(self) -> float:
        """Return 2: another batch is answered, and learned."""
        return 2.0


class _Learned(Applied):
    def __init__(self, chosen: PseudoLabels, facts: TrainingFacts) -> None:
        self.chosen, self.facts = chosen, facts
        self.done = torch.zeros((), dtype=torch.int64)

    def more_loss(self, step: Step, outputs: Tensor) -> Tensor | None:
        """Return the mean over rows of the loss of the sure answers; of all others it is 0."""
        loose = step.unlabelled
        if loose is None or not of_classes(outputs, step.batch.targets):
            return None
        p_BC = step.answers(loose).softmax(-1)
        sure_B, label_B = p_BC.max(-1)
        loss_B = F.cross_entropy(step.outputs(self._hidden(loose)), label_B, reduction="none")
        return self._weight() * (loss_B * (sure_B >= self.chosen.sure)).mean()

    def passes(self) -> int:
        """Return 2: a batch with labels, and one without."""
        return 2

    def _hidden(self, batch: Batch) -> Batch:
        drawn_BL = torch.rand(batch.tokens_BL.shape, generator=self.facts.generator).to(batch.tokens_BL.device)
        hide_BL = (drawn_BL < self.chosen.share) & self.facts.words(batch)
        return batch._replace(tokens_BL=batch.tokens_BL.masked_fill(hide_BL, self.facts.unknown))

    def _weight(self) -> float:
        return self.chosen.weight * min(1.0, int(self.done) / (RISE * self.facts.steps))

    def after_step(self, model: torch.nn.Module) -> None:
        """Count the step."""
        self.done += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Return the number of steps."""
        return {"done": self.done}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back the number of steps."""
        self.done.copy_(state["done"])
