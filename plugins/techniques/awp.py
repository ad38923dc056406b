"""Adversarial weight perturbation: the model learns each batch once more, with the weights that would hurt it most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import Applied, Float, Step, Technique, TrainingFacts

from .fgm import moved, unit


@dataclass(frozen=True, kw_only=True)
class Awp(Technique):
    """Move every trained matrix by `gamma` of its norm along its gradient, and add the gradients of the loss there;
    from a share `start` of the training on.

    The paper takes the gradients there alone; here they are added, so that what other techniques did is kept.
    """

    name: ClassVar[str] = "awp"
    source: ClassVar[str] = "arXiv:2004.05884"
    touches = frozenset({"loss"})

    gamma: Annotated[float, Float(5e-4, 5e-2, log=True)] = 5e-3
    start: Annotated[float, Float(0.0, 0.8)] = 0.2

    def build(self, facts: TrainingFacts) -> Applied:
        """Make what moves the matrices of the trial's model."""
        return _Moving(self.gamma, self.start * facts.steps, facts)

    def work(self) -> float:
        """Return up to 2: from `start` on a batch is learned twice."""
        return 2.0 - self.start


class _Moving(Applied):
    def __init__(self, gamma: float, first: float, facts: TrainingFacts) -> None:
        self.gamma, self.first = gamma, first
        self.model = facts.model
        self.steps = torch.zeros((), dtype=torch.int64)

    def after_backward(self, step: Step) -> None:
        """Add the gradients of the loss with moved weights."""
        if self.steps < self.first:
            return
        used = [(each, each.grad) for each in self.model.parameters() if each.ndim >= 2 and each.grad is not None]
        ways = [self.gamma * each.detach().norm() * unit(grad) for each, grad in used]
        with moved([each for each, _ in used], ways):
            step.backward(step.loss(step.outputs()))

    def after_step(self, model: nn.Module) -> None:
        """Count the step."""
        self.steps += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Return the number of steps."""
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back the number of steps."""
        self.steps.copy_(state["steps"])
