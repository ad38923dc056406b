"""Healing: a pretrained model whose attention was replaced learns first to say in each layer what it said before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import Applied, Float, Technique, TrainingFacts, heal


@dataclass(frozen=True, kw_only=True)
class Healing(Technique):
    """Add `weight` times the squared difference of what each block says and what it said with its own attention, as a
    share of the variance of the latter. It fades evenly, and is gone after `share` of the training, which until then
    takes another forward pass a step. A model whose attention was not replaced has nothing to heal."""

    name: ClassVar[str] = "healing"
    source: ClassVar[str] = "arXiv:2410.10254"
    touches = frozenset({"loss"})

    share: Annotated[float, Float(0.1, 0.6)] = 0.3
    weight: Annotated[float, Float(0.1, 10.0, log=True)] = 1.0

    def build(self, facts: TrainingFacts) -> Applied:
        """Keep a copy of the model as it was before."""
        return _Healed(self, facts)


class _Healed(Applied):
    def __init__(self, chosen: Healing, facts: TrainingFacts) -> None:
        self.weight, self.until = chosen.weight, chosen.share * facts.steps
        self.healer = heal(facts.model, chosen.weight)
        self.done = torch.zeros((), dtype=torch.int64)

    def after_step(self, model: nn.Module) -> None:
        """Heal a little less from step to step."""
        self.done += 1
        self._fade()

    def _fade(self) -> None:
        left = 1.0 - int(self.done) / self.until
        if self.healer is not None and left <= 0.0:
            self.healer.rest()
            self.healer = None
        elif self.healer is not None:
            self.healer.weight = left * self.weight

    def state_dict(self) -> dict[str, Tensor]:
        """Return the number of steps."""
        return {"done": self.done}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back the number of steps."""
        self.done.copy_(state["done"])
        self._fade()
