"""One training step: from a batch to moved weights.

Techniques and the task's loss see every batch once, and whole: in how many parts it is worked off, and by how many
processes, is hidden in `Training.forward`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from deepmine_auto.contracts import Applied, Batch, Mixed
from deepmine_auto.training.recipe import rate_factor

if TYPE_CHECKING:
    from deepmine_auto.training.loop import Training


class OneStep:
    """The batch of a step, and what can be done with it."""

    def __init__(self, training: Training, batch: Batch, unlabelled: Batch | None = None) -> None:
        self.training, self.batch, self.unlabelled = training, batch, unlabelled

    def mixed(self, batch: Batch | None = None) -> Mixed:
        """The model's outputs for the step's batch or another, and the losses of its attention."""
        read = batch or self.batch
        return self.training.forward(read.tokens_BL, read.keep_BL)

    def outputs(self, batch: Batch | None = None) -> Tensor:
        """The model's outputs for the step's batch or another, with the weights as they are now and dropout drawn
        anew."""
        return self.mixed(batch).out

    def answers(self, batch: Batch) -> Tensor:
        """The model's outputs for a batch as predictions have them, without dropout and without gradient."""
        self.training.model.eval()
        with torch.no_grad():
            outputs = self.outputs(batch)
        self.training.model.train()
        return outputs

    def loss(self, outputs: Tensor) -> Tensor:
        """The task's loss of outputs, with what the techniques make of it."""
        loss = self.training.task.loss(outputs, self.batch.targets, self.training.prepared)
        for each in self.training.techniques.values():
            loss = each.on_loss(loss, outputs, self.batch.targets)
        return loss

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to those that are there.

        They are made from nothing and then added, because several workers add up whatever stands there.
        """
        weights = [each for each in self.training.model.parameters() if each.requires_grad]
        before = [each.grad for each in weights]
        for each in weights:
            each.grad = None
        self.scaled(loss).backward()
        for each, there in zip(weights, before, strict=True):
            if there is not None:
                each.grad = there if each.grad is None else each.grad.add_(there)

    def gradients(self, loss: Tensor, weights: Sequence[Tensor]) -> list[Tensor | None]:
        """The gradients of a loss, of which small ones were large on their way through half floats."""
        found = torch.autograd.grad(self.scaled(loss), list(weights), allow_unused=True)
        return [None if each is None else each / self._scale for each in found]

    def scaled(self, loss: Tensor) -> Tensor:
        """A loss as gradients are made of it."""
        return loss * self._scale

    @property
    def _scale(self) -> float:
        factor: float = math.prod(each.scale() for each in self.training.techniques.values())
        return factor


def take_step(training: Training, batch: Batch, unlabelled: Batch | None = None) -> Tensor:
    """Move the weights by one batch; return its loss, without gradient."""
    training.team.draw_for(training.assignment.seed, training.progress.step)
    if training.progress.step < training.before:
        return _step_before_task(training, batch, unlabelled)
    for each in training.techniques.values():
        batch = each.on_batch(batch)
    step = OneStep(training, batch, unlabelled)
    training.optimizer.zero_grad(set_to_none=True)
    loss = _whole_loss(training, step)
    step.scaled(loss).backward()
    for each in sorted(training.techniques.values(), key=_scales):
        each.after_backward(step)
    _move(training, training.progress.step - training.before, training.steps)
    for each in training.adapting:
        each.step((training.progress.step - training.before) / training.steps)
    for each in training.techniques.values():
        each.after_step(training.model)
    return loss.detach()


def _step_before_task(training: Training, batch: Batch, unlabelled: Batch | None) -> Tensor:
    """Move the weights by what companions and attention add to the loss of a batch; return that. Where there are rows
    without labels, every second batch is of these."""
    step = OneStep(training, unlabelled if unlabelled is not None and training.progress.step % 2 else batch)
    mixed = step.mixed()
    loss = sum(mixed.losses.values(), 0.0 * mixed.out.sum())  # workers wait for the gradient of every weight
    training.optimizer.zero_grad(set_to_none=True)
    step.scaled(loss).backward()
    for weight in training.model.head.parameters():
        weight.grad = None  # it is zero, and what learns nothing shall not decay either
    for each in filter(_scales, training.techniques.values()):
        each.after_backward(step)
    _move(training, training.progress.step, training.before)
    return loss.detach()


def _scales(technique: Applied) -> bool:
    """Whether it makes gradients larger, and in the end small again."""
    return type(technique).scale is not Applied.scale


def _whole_loss(training: Training, step: OneStep) -> Tensor:
    mixed = step.mixed()
    loss = step.loss(mixed.out)
    more = (each.more_loss(step, mixed.out) for each in training.techniques.values())
    training.losses = {name: each.detach() for name, each in mixed.losses.items()}
    return sum((each for each in (*more, *mixed.losses.values()) if each is not None), loss)


def _move(training: Training, step: int, steps: int) -> None:
    """Move the weights along their gradients, as far as the schedule has it at `step` of `steps`."""
    torch.nn.utils.clip_grad_norm_(training.model.parameters(), training.recipe.clip)
    factor = rate_factor(training.warm_up, training.schedule, step, steps)
    for group, rate in zip(training.optimizer.param_groups, training.rates, strict=True):
        group["lr"] = rate * factor
    training.optimizer.step()
    training.progress.step += 1
