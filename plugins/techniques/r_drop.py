"""R-Drop: two passes through dropout shall give the same answer.

Shapes: B batch, L length, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor
from torch.nn.functional import kl_div

from deepmine_auto import Applied, Float, Step, Technique, TrainingFacts

from .focal_loss import of_classes


@dataclass(frozen=True, kw_only=True)
class RDrop(Technique):
    """Add the loss of a second pass, and `alpha` times the mean of both divergences between the two.

    As in the paper both losses are summed, so without dropout a loss is twice what it was. Where targets are no
    classes, nothing is changed.
    """

    name: ClassVar[str] = "r_drop"
    source: ClassVar[str] = "arXiv:2106.14448"
    touches = frozenset({"loss"})

    alpha: Annotated[float, Float(0.1, 5.0, log=True)] = 1.0

    def build(self, facts: TrainingFacts) -> Applied:
        """Make what adds to the loss; it knows nothing of the trial."""
        del facts
        return _Twice(self.alpha)

    def work(self) -> float:
        """Return 2: a batch is learned twice."""
        return 2.0


class _Twice(Applied):
    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def more_loss(self, step: Step, outputs: Tensor) -> Tensor | None:
        """Return what the second pass adds, outputs (B, C) or (B, L, C) being logits."""
        if not of_classes(outputs, step.batch.targets):
            return None
        again, keep_BL = step.outputs(), step.batch.keep_BL
        both = divergence(outputs, again, keep_BL) + divergence(again, outputs, keep_BL)
        return step.loss(again) + self.alpha * both / 2

    def passes(self) -> int:
        """Return 2: both passes learn."""
        return 2


def divergence(true: Tensor, other: Tensor, keep_BL: Tensor) -> Tensor:
    """The Kullback-Leibler divergence of `other` from `true`, both logits: its mean over rows where they are (B, C),
    and over real tokens where they are (B, L, C)."""
    log_true, log_other = true.log_softmax(-1), other.log_softmax(-1)
    each = kl_div(log_other, log_true, reduction="none", log_target=True).sum(-1)
    return each.mean() if each.ndim == 1 else each[keep_BL].mean()
