"""Healing: a pretrained model whose attention was replaced learns first to say in each layer what it said before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import Tensor

from deepmine_auto import Applied, Fading, Float, Technique, TrainingFacts, healer_of


@dataclass(frozen=True, kw_only=True)
class Healing(Technique):
    """Add `weight` times the squared difference of what each block says and what it said with its own attention, as a
    share of the variance of the latter. It fades evenly, and is gone after `share` of the training, which until then
    takes another forward pass a step. A model whose attention was not replaced has nothing to heal."""

    name: ClassVar[str] = "healing"
    source: ClassVar[str] = "arXiv:2410.10254"
    touches = frozenset({"loss"})
    heals: ClassVar[bool] = True

    share: Annotated[float, Float(0.1, 0.6)] = 0.3
    weight: Annotated[float, Float(0.1, 10.0, log=True)] = 1.0

    def build(self, facts: TrainingFacts) -> Applied:
        """Keep a copy of the model as it was before."""
        return _Healed(self, facts)

    def work(self) -> float:
        """Return 1, and a third for as long as the old model reads each batch too."""
        return 1.0 + self.share / 3


class _Healed(Fading):
    def __init__(self, chosen: Healing, facts: TrainingFacts) -> None:
        super().__init__(chosen.share, facts.steps)
        model: Any = facts.model
        self.weight, self.healer, self.companions = chosen.weight, healer_of(model), model.companions
        if self.healer is not None:
            self.healer.weight = chosen.weight
            self.companions.append(self.healer)

    def fade(self, left: float) -> None:
        """Heal as much as is left, and forget the old model in the end."""
        if self.healer is None:
            return
        self.healer.weight = left * self.weight
        if not left:
            self.healer.rest()
            self.companions.remove(self.healer)
            self.healer = None

    def holds(self) -> Iterable[Tensor]:
        """Return the number of steps, and the weights of the old model."""
        return [*super().holds(), *(() if self.healer is None else self.healer.before.parameters())]
