"""What two trainings must have in common whose batches are worked off in different ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from deepmine_auto.contracts import Mixed
from deepmine_auto.host import the_host
from deepmine_auto.messages import Assignment, Message, Reported
from deepmine_auto.model.assemble import Model
from deepmine_auto.training import checkpoint, outputs, trial
from deepmine_auto.training.loop import Training

CERTAIN = {"model/encoder/dropout": 0.0, "data/head_dropout": 0.0}
"""Params without dropout: rows that are worked off apart draw other masks."""

SGD = {"optimizer/kind": "sgd", "optimizer/sgd/lr": 0.1}
"""AdamW blows noise up: a weight whose true gradient is zero moves as far as any other."""


def curve(messages: Sequence[Message]) -> list[tuple[int, float]]:
    """Step and value of each report."""
    return [(each.step, each.value) for each in messages if isinstance(each, Reported)]


def last_weights(messages: Sequence[Message], folder: Path) -> dict[str, Tensor]:
    """Weights, and what the optimizer and techniques hold, in the newest checkpoint."""
    paths = [each.checkpoint for each in messages if isinstance(each, Reported) and each.checkpoint]
    tensors = checkpoint.load(folder / paths[-1])[0]
    return {name: each for name, each in tensors.items() if not name.startswith("rng.")}


def assert_alike(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Fail unless all tensors agree to 1e-5."""
    assert one.keys() == other.keys()
    for name, each in one.items():
        torch.testing.assert_close(each, other[name], rtol=0, atol=1e-5, msg=lambda said, name=name: f"{name}: {said}")


def run(work: Assignment) -> list[Message]:
    """All that a training says."""
    return list(trial.messages(work, the_host()))


def kept_bytes(training: Training) -> int:
    """What a forward pass of the next batch keeps for the backward pass."""
    sizes, batch = [], training.draw()[0]

    def keep(tensor: Tensor) -> Tensor:
        sizes.append(tensor.nbytes)
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda each: each):
        training.forward(batch.tokens_BL, batch.keep_BL)
    return sum(sizes)


def judged_at_once(training: Training, patch: Any) -> int:
    """The most rows that an evaluation reads at a time."""
    seen: list[int] = []
    patch.setattr(
        outputs, "evaluation_order", lambda lengths, size, _: seen.append(size) or iter([range(len(lengths))])
    )
    list(training._judge())
    return seen[0]


def assert_goes_on(work: Assignment, patch: Any) -> None:
    """Fail unless a training that is interrupted in its middle goes on bit for bit."""
    patch.setattr(Training, "_due", lambda _: True)
    whole = run(work)
    middle = next(each for each in whole if isinstance(each, Reported) and each.step >= 8)
    rest = run(replace(work, attempt=2, checkpoints=(str(middle.checkpoint),)))
    assert curve(rest) == [(step, value) for step, value in curve(whole) if step > middle.step]
    assert curve(rest)


def assert_learns_the_same(work: Assignment, **otherwise: Any) -> None:
    """Fail unless it learns the same where its batches are worked off otherwise."""
    folder, whole, other = Path(work.folder), run(work), run(replace(work, number=work.number + 1, **otherwise))
    assert curve(other) == [(step, pytest.approx(value, abs=1e-5)) for step, value in curve(whole)]
    assert_alike(last_weights(other, folder), last_weights(whole, folder))


def add_extra_losses(patch: Any) -> None:
    """Let every model have what an attention variant may bring: losses of its own, which are means over rows, and a
    weight that no step uses."""
    build, plain = Model.__init__, Model.forward

    def init(self: Model, *args: Any) -> None:
        build(self, *args)
        self.idle = torch.nn.Parameter(torch.ones(3))

    def forward(self: Model, *args: Any, **options: Any) -> Mixed:
        mixed = plain(self, *args, **options)
        far = mixed.out.square().flatten(1).mean(1)
        return mixed._replace(losses={"far": 0.3 * far.mean(), "farther": 0.1 * far.square().mean()})

    patch.setattr(Model, "__init__", init)
    patch.setattr(Model, "forward", forward)
