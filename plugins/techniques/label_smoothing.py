"""Label smoothing: the model is asked to be sure, but not certain.

Shapes: B batch, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from deepmine_auto import Applied, Float, Technique, TrainingFacts


@dataclass(frozen=True, kw_only=True)
class LabelSmoothing(Technique):
    """Spread a share of the target over all classes alike. Class weights of the loss do not reach that share."""

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
        """Mix the loss with the cross entropy of a uniform target, outputs (B, C) being logits."""
        del targets
        uniform = -outputs.log_softmax(-1).mean()
        return (1 - self.smoothing) * loss + self.smoothing * uniform
