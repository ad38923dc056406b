"""Mixup of whole texts: between two texts the model shall answer between their answers.

Shapes: B batch, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from torch import Tensor

from deepmine_auto import Applied, Float, Step, Technique, TrainingFacts


@dataclass(frozen=True, kw_only=True)
class Mixup(Technique):
    """Each row is mixed with another of its batch, in shares that are drawn from Beta(alpha, alpha) once a batch.

    The vectors of two texts and their scores mix alike where scores are a linear map of vectors, as in ours, so that
    mixing the scores takes no second pass. Their loss is what the task and other techniques make of it, whether these
    weigh classes, smooth labels or put another loss in its place. A pass that another technique adds is not mixed.
    Where each token has an answer, nothing is changed.
    """

    name: ClassVar[str] = "mixup"
    source: ClassVar[str] = "arXiv:1905.08941"
    touches = frozenset({"loss"})
    one_answer = True

    alpha: Annotated[float, Float(0.1, 1.0)] = 0.2

    def build(self, facts: TrainingFacts) -> Applied:
        """Make what adds to the loss; shares and partners come from the trial's generator."""
        return _Mixed(self.alpha, facts.generator)


class _Mixed(Applied):
    def __init__(self, alpha: float, generator: torch.Generator) -> None:
        self.alpha, self.generator = alpha, generator

    def more_loss(self, step: Step, outputs: Tensor) -> Tensor | None:
        """Return what turns the loss of outputs (B, C) into that of mixed outputs with both targets, in the shares of
        the mixture."""
        if outputs.ndim != 2:
            return None
        share, others_B = self._drawn(len(outputs))
        others_B = others_B.to(outputs.device)
        mixed_BC = share * outputs + (1 - share) * outputs[others_B]
        # each mixture in the row of its partner, where the partner's target stands
        swapped_BC = mixed_BC[others_B.argsort()]
        return share * step.loss(mixed_BC) + (1 - share) * step.loss(swapped_BC) - step.loss(outputs)

    def _drawn(self, rows: int) -> tuple[float, Tensor]:
        """A share of Beta(alpha, alpha), and a partner for each row."""
        seed = int(torch.randint(2**62, (), generator=self.generator))  # torch's own Beta takes no generator
        share = float(np.random.default_rng(seed).beta(self.alpha, self.alpha))
        return share, torch.randperm(rows, generator=self.generator)
