"""Mixup of whole texts: between two texts the model shall answer between their answers.

Shapes: B batch, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from deepmine_auto import Applied, Float, Technique, TrainingFacts


@dataclass(frozen=True, kw_only=True)
class Mixup(Technique):
    """Each row is mixed with another of its batch, in shares that are drawn from Beta(alpha, alpha) once a batch.

    The vectors of two texts and their scores mix alike where scores are a linear map of vectors, as in ours, so that
    mixing the scores takes no second pass. It stands in place of the task's loss, whose class weights fall away with
    it. Where each token has an answer, nothing is changed.
    """

    name: ClassVar[str] = "mixup"
    source: ClassVar[str] = "arXiv:1905.08941"
    touches = frozenset({"loss"})

    alpha: Annotated[float, Float(0.1, 1.0)] = 0.2

    def build(self, facts: TrainingFacts) -> Applied:
        """Make what changes the loss; shares and partners come from the trial's generator."""
        return _Mixed(self.alpha, facts.generator)


class _Mixed(Applied):
    def __init__(self, alpha: float, generator: torch.Generator) -> None:
        self.alpha, self.generator = alpha, generator

    def on_loss(self, loss: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross entropy of mixed outputs (B, C) with both targets (B,), in the shares of the mixture."""
        if outputs.ndim != 2:
            return loss
        share, others_B = self._drawn(len(targets))
        others_B = others_B.to(targets.device)
        mixed_BC = share * outputs + (1 - share) * outputs[others_B]
        return share * cross_entropy(mixed_BC, targets) + (1 - share) * cross_entropy(mixed_BC, targets[others_B])

    def _drawn(self, rows: int) -> tuple[float, Tensor]:
        """A share of Beta(alpha, alpha), and a partner for each row."""
        seed = int(torch.randint(2**62, (), generator=self.generator))  # torch's own Beta takes no generator
        share = float(np.random.default_rng(seed).beta(self.alpha, self.alpha))
        return share, torch.randperm(rows, generator=self.generator)
