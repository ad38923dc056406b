"""Label smoothing: the model is asked to be sure, but not certain.

Shapes: B batch, L length, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from deepmine_auto import Applied, Float, Technique, TrainingFacts

from .focal_loss import IGNORED, of_classes


@dataclass(frozen=True, kw_only=True)
class LabelSmoothing(Technique):
    """Spread a share of the target over all classes alike. Class weights of the loss do not reach that share. Where
    targets are no classes, nothing is changed."""

    name: ClassVar[str] = "label_smoothing"
    source: ClassVar[str] = "arXiv:1512.00567"
    touches = frozenset({"loss"})

    smoothing: Annotated[float, Float(0.02, 0.2)] = 0.1

    def build(self, facts: TrainingFacts) -> Applied:
        """Make what changes the loss; it knows nothing of the trial."""
        del facts
        return _Smoothed(self.smoothing)


class _Smoothed(Applied):
    def __init__(self, smoothing: float) -> None:
        self.smoothing = smoothing

    def on_loss(self, loss: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mix the loss with the cross entropy of a uniform target, outputs (B, C) or (B, L, C) being logits; of tokens,
        those count that are asked in targets (B, L or more)."""
        if not of_classes(outputs, targets):
            return loss
        log_p = outputs.log_softmax(-1)
        uniform = -(log_p.mean() if outputs.ndim == 2 else _mean_of_asked(log_p, targets))
        return (1 - self.smoothing) * loss + self.smoothing * uniform


def _mean_of_asked(log_p_BLC: Tensor, targets: Tensor) -> Tensor:
    asked_BL = targets[:, : log_p_BLC.shape[1]] != IGNORED
    return log_p_BLC.mean(-1)[asked_BL].sum() / asked_BL.sum().clamp_min(1)
