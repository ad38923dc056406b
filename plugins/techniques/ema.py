"""Averaged weights: what is judged and exported is a moving average of the weights that are trained.

Averaging takes out the noise of the last steps, which a small learning rate would take out more slowly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import Applied, Float, Technique, TrainingFacts


@dataclass(frozen=True, kw_only=True)
class Ema(Technique):
    """Each step keeps `decay` of the average, and less in the first steps: (1 + t) / (10 + t), so that the untrained
    weights are soon forgotten. Training itself goes on as without it."""

    name: ClassVar[str] = "ema"
    source: ClassVar[str] = "arXiv:2411.18704"
    touches = frozenset({"judged"})

    decay: Annotated[float, Float(0.9, 0.999)] = 0.99

    def build(self, facts: TrainingFacts) -> Applied:
        """Make the average of the model's weights; frozen weights and buffers are not averaged."""
        return Average(lambda step: min(self.decay, (1 + step) / (10 + step)), facts.model)


class Average(Applied):
    """An average of a model's weights, of which step t, counted from 0, keeps `kept(t)`."""

    def __init__(self, kept: Callable[[int], float], model: nn.Module) -> None:
        self.kept = kept
        self.steps = torch.zeros((), dtype=torch.int64)
        weights = named_weights(model)
        self.average = {name: each.detach().clone() for name, each in weights.items() if each.requires_grad}

    def after_step(self, model: nn.Module) -> None:
        """Move the average towards the model's weights."""
        kept = self.kept(int(self.steps))
        weights = named_weights(model)
        now = [weights[name].detach() for name in self.average]
        torch._foreach_lerp_(list(self.average.values()), now, 1 - kept)
        self.steps += 1

    def evaluated(self, model: nn.Module) -> Mapping[str, Tensor]:
        """Return the model's state dict with the averages in it; like any state dict it shares memory."""
        return {**model.state_dict(), **self.average}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages and the number of steps."""
        return {"steps": self.steps, **{f"average.{name}": each for name, each in self.average.items()}}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back averages and number of steps."""
        self.steps.copy_(state["steps"])
        for name, each in self.average.items():
            each.copy_(state[f"average.{name}"])


def named_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights by all their names: a tied one stands in the state dict under both, so it is averaged under both."""
    return dict(model.named_parameters(remove_duplicate=False))
