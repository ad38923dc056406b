"""Distillation: a model learns from labels, and from what a teacher thinks of every class (Hinton, Vinyals and Dean,
arXiv:1503.02531).

Shapes: N rows, B batch, L length, C classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import kl_div

from deepmine_auto.contracts import Applied, Step
from deepmine_auto.model.guard import Refused


class Taught(Applied):
    """Mix the loss with `alpha` times the divergence from the teacher, both softened by the temperature T.

    Its gradients shrink with 1 / T**2, so it is multiplied by T**2, as in the paper.

    `teacher` are log-probabilities (N, C) or (N, L, C) of all training rows; a token on which they are zero is learned
    from its label alone.
    """

    def __init__(self, teacher: np.ndarray, alpha: float, temperature: float) -> None:
        self.teacher = torch.from_numpy(teacher.astype(np.float32))
        self.alpha, self.temperature = alpha, temperature

    def on_loss(self, loss: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
        """Leave the labels their share."""
        del outputs, targets
        return (1 - self.alpha) * loss

    def more_loss(self, step: Step, outputs: Tensor) -> Tensor:
        """Return the teacher's share for outputs (B, C) or (B, L, C): a mean over rows, or over real tokens."""
        rows_B, keep_BL = step.batch.rows_B, step.batch.keep_BL
        if rows_B is None:
            raise Refused("A technique of this trial hides which rows a batch holds.", "Choose a trial without it.")
        taught = self.teacher[rows_B.cpu()].to(outputs.device)
        if taught.ndim == 3:  # tokens beyond what the teacher read have none to learn from
            length = min(outputs.shape[1], taught.shape[1])
            outputs, taught, keep_BL = outputs[:, :length], taught[:, :length], keep_BL[:, :length]
            real_BL = keep_BL & taught.any(-1)
            outputs, taught = outputs[real_BL], taught[real_BL]
        soft, own = ((each / self.temperature).log_softmax(-1) for each in (taught, outputs))
        apart = kl_div(own, soft, reduction="sum", log_target=True) / max(1, len(soft))
        return self.alpha * self.temperature**2 * apart
