"""One training step: from a batch to moved weights.

Techniques and the task's loss see every batch once, and whole: in how many parts it is worked off, and by how many
processes, is hidden in `Training.forward`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from deepmine_auto.contracts import Batch

if TYPE_CHECKING:
    from deepmine_auto.training.loop import Training


def take_step(training: Training, batch: Batch) -> Tensor:
    """Move the weights by one batch; return its loss, without gradient."""
    training.team.draw_for(training.assignment.seed, training.progress.step)
    loss = _loss(training, batch)
    training.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(training.model.parameters(), training.recipe.clip)
    _set_rate(training)
    training.optimizer.step()
    training.progress.step += 1
    for each in training.adapting:
        each.step(training.progress.step / training.steps)
    for each in training.techniques.values():
        each.after_step(training.model)
    return loss.detach()


def _loss(training: Training, batch: Batch) -> Tensor:
    for each in training.techniques.values():
        batch = each.on_batch(batch)
    mixed = training.forward(batch.tokens_BL, batch.keep_BL)
    loss = training.task.loss(mixed.out, batch.targets, training.prepared)
    for each in training.techniques.values():
        loss = each.on_loss(loss, mixed.out, batch.targets)
    training.losses = {name: each.detach() for name, each in mixed.losses.items()}
    return sum(mixed.losses.values(), loss)


def _set_rate(training: Training) -> None:
    factor = training.schedule.factor(training.progress.step, training.steps)
    for group, rate in zip(training.optimizer.param_groups, training.rates, strict=True):
        group["lr"] = rate * factor
