"""Adversarial training on word vectors: the model learns each batch once more, where its words would hurt it most.

Shapes: V vocabulary, E dim of word vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import Applied, Float, Step, Technique, TrainingFacts, word_rows, word_weights


@dataclass(frozen=True, kw_only=True)
class Fgm(Technique):
    """Move the word vectors by `epsilon` along the gradient of the loss, and add the gradients of the loss there.

    The paper moves the words of each text by themselves; here the table moves, once a batch. Where it is frozen, the
    first matrix that is not moves instead.
    """

    name: ClassVar[str] = "fgm"
    source: ClassVar[str] = "arXiv:1605.07725"
    touches = frozenset({"loss"})

    epsilon: Annotated[float, Float(0.1, 5.0, log=True)] = 1.0

    def build(self, facts: TrainingFacts) -> Applied:
        """Make what moves the word vectors of the trial's model."""
        return _Moving(self.epsilon, facts)

    def work(self) -> float:
        """Return 2: a batch is learned twice."""
        return 2.0


class _Moving(Applied):
    def __init__(self, epsilon: float, facts: TrainingFacts) -> None:
        self.epsilon = epsilon
        self.facts = facts

    def after_backward(self, step: Step) -> None:
        """Add the gradients of the loss with moved words (V, E). Raises BadInput where every weight is frozen."""
        # looked up at each step: another technique may freeze and thaw weights
        words = word_weights(self.facts.model, self.facts.prepared.vocabulary)
        with moved([words], [self.epsilon * uphill(self.facts, words)]):
            step.backward(step.loss(step.outputs()))


@contextmanager
def moved(weights: Sequence[nn.Parameter], ways: Sequence[Tensor]) -> Iterator[None]:
    """Weights that stand elsewhere for a while, and then again where they stood, bit for bit.

    A graph that is made meanwhile must be used up meanwhile: it looks at the weights as they then are.
    """
    before = [each.detach().clone() for each in weights]
    try:
        for each, way in zip(weights, ways, strict=True):
            each.data.add_(way)  # through `data`: a graph made before, and used afterwards, must not call them changed
        yield
    finally:
        for each, there in zip(weights, before, strict=True):
            each.data.copy_(there)


def unit(way: Tensor) -> Tensor:
    """A way at length 1; one of length 0 stays so. One that is not finite, as after an overflow in float16, leads
    nowhere: whoever scales the loss skips such a step."""
    length = way.norm()
    scaled = way / length.clamp_min(torch.finfo(way.dtype).tiny)
    return torch.where(length.isfinite(), scaled, 0.0)


def uphill(facts: TrainingFacts, words: nn.Parameter) -> Tensor:
    """The gradient of words (V, E) at length 1. Padding does not move, nor do words without a gradient."""
    way = torch.zeros_like(words) if words.grad is None else words.grad.clone()
    pad_1 = torch.zeros(1, dtype=torch.int64, device=words.device)
    padding = word_rows(facts.model, facts.prepared.vocabulary, pad_1)
    if padding is not None:
        way[padding] = 0.0
    return unit(way)
