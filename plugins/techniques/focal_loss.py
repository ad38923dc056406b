"""Focal loss: what a model is sure of already teaches it little more, so what is hard weighs more.

Shapes: B batch, L length, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from deepmine_auto import Applied, Float, Technique, TrainingFacts

IGNORED = -100
"""The target of a token that is not asked for an answer."""


@dataclass(frozen=True, kw_only=True)
class FocalLoss(Technique):
    """Each answer's cross entropy counts (1 - p) ** gamma times, p being the probability of the right class.

    It stands in place of the task's loss, whose class weights fall away with it. Where targets are no classes, nothing
    is changed.
    """

    name: ClassVar[str] = "focal_loss"
    source: ClassVar[str] = "arXiv:1708.02002"
    touches = frozenset({"loss"})

    gamma: Annotated[float, Float(0.5, 5.0)] = 2.0

    def build(self, facts: TrainingFacts) -> Applied:
        """Make what changes the loss; it knows nothing of the trial."""
        del facts
        return _Focal(self.gamma)


def of_classes(outputs: Tensor, targets: Tensor) -> bool:
    """Whether outputs are logits (..., C) of classes, which whole numbers name; those of numbers are (B,)."""
    return outputs.ndim >= 2 and not targets.is_floating_point()


class _Focal(Applied):
    def __init__(self, gamma: float) -> None:
        self.gamma = gamma

    def on_loss(self, loss: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over rows of outputs (B, C) for targets (B,), or over the tokens asked of outputs (B, L, C)
        for targets (B, L or more)."""
        if not of_classes(outputs, targets):
            return loss
        asked = targets[:, : outputs.shape[1]] if outputs.ndim == 3 else targets
        surprise = cross_entropy(outputs.flatten(0, -2), asked.flatten(), reduction="none", ignore_index=IGNORED)
        # where p rounds to 1, the slope of the power below 1 would be infinite, and infinite times 0 is no number
        wrong = (-torch.expm1(-surprise)).clamp_min(torch.finfo(outputs.dtype).tiny)
        return (wrong**self.gamma * surprise).sum() / (asked != IGNORED).sum().clamp_min(1)
