"""What all promises about a technique share: a model as the host builds it, a trial that takes the host's own steps on
it, and batches.

Shapes: B batch, L length, D dim, C classes, N rows or words, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from deepmine_auto.contracts import Batch, Mixed, Technique, TrainingFacts
from deepmine_auto.data.rows import Rows
from deepmine_auto.model.assemble import Model
from deepmine_auto.training.groups import split_by_rate
from deepmine_auto.training.recipe import Recipe, WarmUp
from deepmine_auto.training.state import Progress
from deepmine_auto.training.step import take_step
from deepmine_auto.training.team import Alone

VOCABULARY, CLASSES, DIM = 12, 3, 4
STEPS = 8
IGNORED = -100
"""The target of a token that is not asked for an answer."""
UNEVEN_N = np.array([0, 0, 0, 0, 1, 2])
"""The classes of rows of which some are rare."""
PARAPHRASES = {0: (np.array([7, 8]),), 2: (np.array([3]), np.array([4, 5, 6, 7, 8, 9]))}
"""Other words for two of the four texts of a batch."""


# -- what is trained ---------------------------------------------------------------------------------------------------


def _vectors() -> np.ndarray:
    """A vector (V, 2) for each word, near that of one other; padding and the unknown word have none."""
    number_V = np.arange(VOCABULARY)
    angle_V = np.deg2rad(number_V // 2 * 60 + number_V % 2 * 5)
    return (np.stack((np.cos(angle_V), np.sin(angle_V)), 1) * (number_V > 1)[:, None]).astype(np.float32)


@dataclass(frozen=True)
class Words:
    """The least that can be prepared: numbers that stand for words."""

    vocabulary: int = VOCABULARY
    outputs: int = CLASSES
    max_len: int = 64
    vectors_VE: np.ndarray | None = field(default_factory=_vectors)

    def encode(self, inputs: Sequence[Any]) -> list[list[int]]:
        """Return the inputs, which are token ids."""
        return [list(each) for each in inputs]

    def targets(self, rows: Rows) -> np.ndarray:
        """Return the labels, which are class numbers."""
        return np.array(rows.labels)

    def save(self, folder: Path) -> None:
        """There is nothing to keep."""


class Reader(nn.Module):
    """The least that can be a backbone: a vector for each word, a frozen layer, and a buffer of whole numbers."""

    dim = DIM

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, DIM, padding_idx=0)
        self.frozen = nn.Linear(DIM, DIM).requires_grad_(False)
        self.register_buffer("ids", torch.arange(VOCABULARY))
        self.read_BL = torch.zeros(0)

    def forward(self, tokens_BL: Tensor, keep_BL: Tensor, *, weights: bool = False) -> Mixed:
        """Return a vector for each token (B, L, D), and remember what was read."""
        self.read_BL = tokens_BL
        return Mixed(self.frozen(self.vectors(tokens_BL)))

    def vectors(self, tokens_N: Tensor) -> Tensor:
        """What it knows of words before it reads a text, (N, D)."""
        known_ND: Tensor = self.table(tokens_N)
        return known_ND


class Scores(nn.Module):
    """A score for each class: of the mean over a text, or of each token."""

    def __init__(self, *, each_token: bool) -> None:
        super().__init__()
        self.each_token = each_token
        self.to_classes = nn.Linear(DIM, CLASSES)

    def forward(self, x_BLD: Tensor, keep_BL: Tensor) -> Tensor:
        """Return logits (B, C), or (B, L, C)."""
        real_BL1 = keep_BL[..., None]
        scored = x_BLD if self.each_token else (x_BLD * real_BL1).sum(1) / real_BL1.sum(1)
        logits: Tensor = self.to_classes(scored)
        return logits


class Classifier(Model):
    """A model that is always the same at first."""

    backbone: Reader
    head: Scores

    def __init__(self, *, each_token: bool = False) -> None:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            super().__init__(Reader(), Scores(each_token=each_token))


def sure() -> Classifier:
    """A model that is sure of its answers, as one is that has learned, and not always right."""
    model = Classifier()
    with torch.no_grad():
        model.head.to_classes.weight *= 30.0
    return model


# -- how it is trained -------------------------------------------------------------------------------------------------


class Trial:
    """A technique at work, and all that the host's step asks of a training. The batches of a step depend on its number
    alone, and weights move by plain gradient descent."""

    def __init__(self, technique: Technique, model: Classifier | None = None) -> None:
        self.model, self.prepared = model or Classifier(), Words()
        self.generator = torch.Generator().manual_seed(0)
        facts = TrainingFacts(self.model, self.prepared, STEPS, self.generator, paraphrases=PARAPHRASES)
        self.applied = technique.build(facts)
        self.techniques = {"technique": self.applied}
        self.steps, self.before, self.progress = STEPS, self.applied.before_task(), Progress()
        self.recipe, self.warm_up, self.team = Recipe(clip=math.inf), WarmUp(warmup=0.0), Alone()
        self.schedule = SimpleNamespace(factor=lambda _done: 1.0)
        self.assignment, self.task = SimpleNamespace(seed=0), SimpleNamespace(loss=self.loss)
        self.adapting: list[Any] = []
        self.losses: dict[str, Tensor] = {}
        self.optimizer = self._optimizer()
        self.rates = [group["lr"] for group in self.optimizer.param_groups]

    def _optimizer(self) -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD([each for each in self.model.parameters() if each.requires_grad], lr=0.1)
        weights = dict(self.model.named_parameters())
        split_by_rate(optimizer, {weights[name]: rate for name, rate in self.applied.rates(self.model).items()})
        return optimizer

    @property
    def whole(self) -> range:
        """The numbers of all its steps, those before the task too."""
        return range(self.before + STEPS)

    def train(self, steps: range) -> list[float]:
        """Take steps, with an evaluation after every second of the task, and return their losses."""
        losses = []
        for number in steps:
            losses.append(self.step(number))
            if number % 2 and number >= self.before:
                self.judge()
        return losses

    def step(self, number: int) -> float:
        """Take a step as the host does, and return its loss."""
        self.model.train()
        self.progress.step = number
        training: Any = self
        return take_step(training, self.batch(number), without_labels(number)).item()

    def batch(self, number: int) -> Batch:
        """The batch of a step, with answers as the model gives them."""
        batch = batch_of(number)
        return with_answers_of_tokens(batch) if self.model.head.each_token else batch

    def forward(self, tokens_BL: Tensor, keep_BL: Tensor) -> Mixed:
        """The model's outputs. Companions draw from torch's own numbers, whose state a checkpoint of the host holds:
        here they follow from the step."""
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(self.progress.step)
            mixed: Mixed = self.model(tokens_BL, keep_BL)
        return mixed

    def loss(self, outputs: Tensor, targets: Tensor, prepared: Words) -> Tensor:
        """The task's loss."""
        return loss_of(outputs, targets)

    def judge(self) -> None:
        """Score the weights that would be judged, on a batch that no step has, and tell the technique."""
        batch = self.batch(self.whole.stop)
        self.model.eval()
        with torch.inference_mode():
            mixed = functional_call(self.model, self.weights(), (batch.tokens_BL, batch.keep_BL))
            score = -loss_of(mixed.out, batch.targets).item()
        if math.isfinite(score):
            self.applied.judged(score)

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights that would be judged."""
        evaluated = self.applied.evaluated(self.model)
        return copied(self.model.state_dict() if evaluated is None else evaluated)


class Watched(Trial):
    """A trial that finds out what its technique touches: beside each step of the task, a model that nobody touched
    reads what was read. `gradients` are among what it finds: they are touched by way of the loss or of the weights."""

    def __init__(self, technique: Technique, model: Classifier | None = None) -> None:
        first = model or Classifier()
        self.untouched, self.touched = deepcopy(first), set[str]()
        super().__init__(technique, first)
        if not same_weights(self.model, self.untouched) or {*self.applied.rates(self.model).values()} - {1.0}:
            self.touched.add("weights")
        if self.applied.odds(UNEVEN_N) is not None:
            self.touched.add("input")
        if shapes(self.model) != shapes(self.untouched):
            self.untouched = deepcopy(self.model)  # with what was put into it, and nothing beside it
            self.untouched.companions.clear()
        self.optimizer.register_step_pre_hook(self._note)
        self.optimizer.register_step_post_hook(self._note)

    def _note(self, *_: Any) -> None:
        """Keep the weights as they are: when a step begins, when they move, when they have moved, and when it ends."""
        self.noted.append(copied(self.model.state_dict()))

    def step(self, number: int) -> float:
        """Take a step, and find out what is touched in it."""
        self.noted: list[dict[str, Tensor]] = []
        self.read: list[tuple[Tensor, Tensor]] = []
        self.asked: list[Tensor] = []
        self._note()
        loss = super().step(number)
        self._note()
        if number >= self.before:
            self.touched.update(self._compared(number, loss))
        elif loss:
            self.touched.add("loss")
        return loss

    def forward(self, tokens_BL: Tensor, keep_BL: Tensor) -> Mixed:
        """The model's outputs, and a note of what was read for them."""
        mixed = super().forward(tokens_BL, keep_BL)
        self.read.append((self.model.backbone.read_BL, keep_BL))
        if not torch.equal(self.model.backbone.read_BL, tokens_BL):
            self.touched.add("input")
        return mixed

    def loss(self, outputs: Tensor, targets: Tensor, prepared: Words) -> Tensor:
        """The task's loss, and a note of its targets."""
        self.asked.append(targets)
        return super().loss(outputs, targets, prepared)

    def _compared(self, number: int, loss: float) -> Iterator[str]:
        begun, moving, moved, ended = self.noted
        read = Batch(*self.read[0], self.asked[0])
        plain = self.plainly(read)
        changed = {
            "input": not same(read, self.batch(number)._replace(rows_B=None)),
            "loss": loss != plain.item(),
            "gradients": not same_tensors(gradients(self.model), gradients(self.untouched)),
            "weights": not (same_tensors(moving, begun) and same_tensors(ended, moved))
            or learning(self.model) != learning(self.untouched),
            "judged": self.applied.evaluated(self.model) is not None,
        }
        yield from (name for name, each in changed.items() if each)

    def plainly(self, batch: Batch) -> Tensor:
        """The task's loss of a batch with the weights before the last step; its gradients stand in `untouched`."""
        self.untouched.load_state_dict(self.noted[0])
        self.untouched.zero_grad()
        loss = loss_of(self.untouched(batch.tokens_BL, batch.keep_BL).out, batch.targets)
        torch.autograd.backward(loss)
        return loss


# -- what it is trained on ---------------------------------------------------------------------------------------------


def batch_of(step: int) -> Batch:
    """Four texts of 1 to 5 words; ids 2 to 11 are words."""
    generator = torch.Generator().manual_seed(step)
    lengths_B1 = torch.tensor([[1], [3], [4], [5]])
    keep_BL = torch.arange(5) < lengths_B1
    words_BL = torch.randint(2, VOCABULARY, keep_BL.shape, generator=generator)
    return Batch(words_BL * keep_BL, keep_BL, torch.randint(CLASSES, (4,), generator=generator), torch.arange(4))


def without_labels(step: int) -> Batch:
    """Three other texts, whose targets mean nothing."""
    tokens_BL, keep_BL, *_ = batch_of(step + 1_000)
    return Batch(tokens_BL[:3], keep_BL[:3], torch.zeros(3, dtype=torch.int64), torch.arange(3))


def with_answers_of_tokens(batch: Batch) -> Batch:
    """The same with an answer for each token; targets (B, L or more) may be those of longer rows."""
    answers_BL = (batch.tokens_BL % CLASSES).masked_fill(~batch.keep_BL, IGNORED)
    return batch._replace(targets=F.pad(answers_BL, (0, 1), value=IGNORED))


def loss_of(outputs: Tensor, targets: Tensor) -> Tensor:
    """The task's own loss, of logits (B, C) for targets (B,), or (B, L, C) for (B, L or more)."""
    asked = targets[:, : outputs.shape[1]] if outputs.ndim == 3 else targets
    return F.cross_entropy(outputs.flatten(0, -2), asked.flatten(), ignore_index=IGNORED)


def same(one: Batch, other: Batch) -> bool:
    """Whether two batches are equal in all parts."""
    pairs = zip(one, other, strict=True)
    return all(a is b is None or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


def copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy a state dict."""
    return {name: each.clone() for name, each in state.items()}


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """The gradients that there are, by name."""
    return {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


def same_tensors(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two state dicts are equal bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Whether two models hold the same weights, and freeze the same."""
    return learning(one) == learning(other) and same_tensors(one.state_dict(), other.state_dict())


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    """The shapes of weights and buffers."""
    return {name: each.shape for name, each in model.state_dict().items()}


def learning(model: nn.Module) -> set[str]:
    """The names of the weights that are not frozen."""
    return {name for name, each in model.named_parameters() if each.requires_grad}
