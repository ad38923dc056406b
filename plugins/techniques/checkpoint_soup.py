"""Soup of checkpoints: what is judged and exported is the mean of the weights at the best evaluations of the trial.

Weights that one training passes through lie in one valley, and their mean often lies deeper in it than each of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from deepmine_auto import Applied, Float, Int, Technique, TrainingFacts

from .ema import named_weights

Weights = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class CheckpointSoup(Technique):
    """After the share `start` of the training each evaluation judges the mean of the weights of the moment and of those
    at the best evaluations before it, `ingredients` in all. The weights of the moment stay while theirs is one of the
    best. Until `start` they are judged alone, because a mean is behind while a model learns fast. Training itself goes
    on as without it.

    The paper's greedy soup judges each ingredient alone as well, which would double the evaluations. It holds as many
    copies of the weights as there are ingredients.
    """

    name: ClassVar[str] = "checkpoint_soup"
    source: ClassVar[str] = "arXiv:2203.05482"
    touches = frozenset({"judged"})

    ingredients: Annotated[int, Int(2, 5)] = 3
    start: Annotated[float, Float(0.3, 0.9)] = 0.5

    def build(self, facts: TrainingFacts) -> Applied:
        """Make a soup of the model's weights, empty as yet; frozen weights and buffers are not averaged."""
        return _Soup(self.ingredients, int(self.start * facts.steps), facts.model)


class _Ingredient(NamedTuple):
    score: float
    weights: Weights


class _Soup(Applied):
    """The ingredients in the order of time; those without a score are not there yet. `inside` says that the last of
    them are the weights of the moment."""

    def __init__(self, ingredients: int, first: int, model: nn.Module) -> None:
        self.first, self.model = first, model
        self.steps, self.inside = 0, False
        self.names = [name for name, each in named_weights(model).items() if each.requires_grad]
        # all at once: what a training needs is measured before the first is judged
        self.kept = [_Ingredient(-math.inf, _copied(self._now(model))) for _ in range(ingredients)]

    def after_step(self, model: nn.Module) -> None:
        """Count the step, after which the weights are others."""
        self.steps, self.inside = self.steps + 1, False

    def evaluated(self, model: nn.Module) -> Mapping[str, Tensor]:
        """Return the model's state dict with the mean in it."""
        earlier = [each.weights for each in self._earlier() if each.score > -math.inf and self.steps > self.first]
        return {**model.state_dict(), **_mean([*earlier, self._now(model)])}

    def judged(self, score: float) -> None:
        """Keep the weights of the moment in the place of the worst ingredient, unless they are worse."""
        if not self.inside and score >= min(each.score for each in self.kept):
            self.kept = [*self._earlier(), _Ingredient(score, _copied(self._now(self.model)))]
            self.inside = True

    def _earlier(self) -> list[_Ingredient]:
        """The best ingredients, all but one, without the weights of the moment."""
        scores = [each.score for each in self.kept]
        left_out = len(scores) - 1 if self.inside else scores.index(min(scores))
        return self.kept[:left_out] + self.kept[left_out + 1 :]

    def _now(self, model: nn.Module) -> Weights:
        weights = named_weights(model)
        return {name: weights[name].detach() for name in self.names}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the ingredients with their scores, the number of steps, and whether the last is of the moment."""
        scores = torch.tensor([each.score for each in self.kept], dtype=torch.float64)
        weights = {f"{at}.{name}": tensor for at, each in enumerate(self.kept) for name, tensor in each.weights.items()}
        return {"counts": torch.tensor([self.steps, self.inside]), "scores": scores, **weights}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` returned."""
        self.steps, inside = state["counts"].tolist()
        self.inside = bool(inside)
        weights = [each.weights for each in self.kept]
        for at, each in enumerate(weights):
            for name, tensor in each.items():
                tensor.copy_(state[f"{at}.{name}"])
        self.kept = [_Ingredient(*each) for each in zip(state["scores"].tolist(), weights, strict=True)]


def _copied(weights: Weights) -> Weights:
    return {name: each.clone() for name, each in weights.items()}


def _mean(ingredients: list[Weights]) -> Weights:
    return {name: torch.stack([each[name] for each in ingredients]).mean(0) for name in ingredients[0]}
