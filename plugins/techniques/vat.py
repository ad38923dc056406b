"""Virtual adversarial training: an answer shall stay what it is where the words move to change it most.

Shapes: B batch, L length, C classes, V vocabulary, E dim of word vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import Applied, Float, Step, Technique, TrainingFacts, word_rows, word_weights

from .fgm import moved, unit, uphill
from .focal_loss import of_classes
from .r_drop import divergence


@dataclass(frozen=True, kw_only=True)
class Vat(Technique):
    """Add `alpha` times the divergence of the outputs from those with word vectors moved by `epsilon`. No label says
    where to: it is one power iteration from a random way of length `xi`.

    As in `fgm`, it is the table that moves, once a batch. The iteration compares passes with the same dropout, or it
    would find the way of what was dropped out. The divergence that is added has dropout of its own. Where targets are
    no classes, nothing is changed.
    """

    name: ClassVar[str] = "vat"
    source: ClassVar[str] = "arXiv:1704.03976"
    touches = frozenset({"loss"})

    alpha: Annotated[float, Float(0.1, 5.0, log=True)] = 1.0
    epsilon: Annotated[float, Float(0.1, 5.0, log=True)] = 1.0
    xi: float = 0.1

    def build(self, facts: TrainingFacts) -> Applied:
        """Make what adds to the loss; it draws from the trial's generator."""
        return _Smoothed(self, facts)

    def work(self) -> float:
        """Return 3: two more passes have gradients, one to find the way and one to learn."""
        return 3.0


class _Smoothed(Applied):
    def __init__(self, chosen: Vat, facts: TrainingFacts) -> None:
        self.chosen = chosen
        self.facts = facts

    def more_loss(self, step: Step, outputs: Tensor) -> Tensor | None:
        """Return the weighted divergence, outputs (B, C) or (B, L, C) being logits.

        Its gradients are made here, while the words stand elsewhere: worked off in parts, a batch is computed again for
        them. Raises BadInput where every weight is frozen.
        """
        if not of_classes(outputs, step.batch.targets):
            return None
        words = word_weights(self.facts.model, self.facts.prepared.vocabulary)
        way_VE = self._worst(step, words)
        trained = [each for each in self.facts.model.parameters() if each.requires_grad]
        with moved([words], [self.chosen.epsilon * way_VE]):
            loss = self.chosen.alpha * divergence(outputs.detach(), step.outputs(), step.batch.keep_BL)
            gradients = step.gradients(loss, trained)
        # a weight without a gradient is left out: workers do not wait for it
        used = [(weight, each) for weight, each in zip(trained, gradients, strict=True) if each is not None]
        known: Tensor = _Known.apply(loss.detach(), [each for _, each in used], *(weight for weight, _ in used))
        return known

    def passes(self) -> int:
        """Return 2: the clean pass waits for the gradients of each of the others."""
        return 2

    def _worst(self, step: Step, words: nn.Parameter) -> Tensor:
        """The way (V, E) along which the outputs change most, of length 1, and the same for all workers."""
        weights = list(self.facts.model.parameters())
        before = [each.grad for each in weights]
        here = _foretold(step)
        with moved([words], [self.chosen.xi * self._random(step, words)]):
            for each in weights:
                each.grad = None
            step.backward(divergence(here, step.outputs(), step.batch.keep_BL))
            way_VE = uphill(self.facts, words)
        for each, there in zip(weights, before, strict=True):
            each.grad = there
        return way_VE

    def _random(self, step: Step, words: nn.Parameter) -> Tensor:
        """A random way (V, E) of length 1; of a table, the rows move that the batch looks up, but for padding."""
        way_VE, generator = torch.zeros_like(words), self.facts.generator
        tokens_N = step.batch.tokens_BL[step.batch.keep_BL].unique()
        rows = word_rows(self.facts.model, self.facts.prepared.vocabulary, tokens_N)
        rows = torch.arange(len(words)) if rows is None else rows
        drawn = torch.randn(way_VE[rows].shape, generator=generator, device=generator.device)
        way_VE[rows] = drawn.to(words)
        return unit(way_VE)


@torch.no_grad()
def _foretold(step: Step) -> Tensor:
    """The outputs that the next pass would have if nothing moved until then: it will draw the same dropout."""
    device = step.batch.tokens_BL.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        return step.outputs()


class _Known(torch.autograd.Function):
    """A loss whose gradients are known already."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: Sequence[Tensor], *weights: Tensor) -> Tensor:
        """Return the loss."""
        del weights
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *scale: Tensor) -> Any:
        """Return the gradients, scaled by that of the loss."""
        return None, None, *(scale[0] * each for each in ctx.gradients)
