"""Low-rank adaptation: beside each frozen matrix learns a product of two thin ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import nn

from deepmine_auto import Choice, Float, Tuning, inject, linears_of


@dataclass(frozen=True, kw_only=True)
class Lora(Tuning):
    """The product counts `scale` times, whatever its rank. `targets` are the matrices of attention, or all of a block.
    Only the highest share `top` of the blocks has such products, at least one block; what lies below takes no gradient.
    """

    name: ClassVar[str] = "lora"
    source: ClassVar[str] = "arXiv:2106.09685"
    needs: ClassVar[str] = "peft"
    form: ClassVar[dict[str, Any]] = {}
    """What peft must know of a relative of it."""

    rank: Annotated[int, Choice(2, 4, 8, 16, 32)] = 8
    scale: Annotated[float, Choice(1.0, 2.0, 4.0)] = 2.0
    dropout: Annotated[float, Float(0.0, 0.2)] = 0.05
    targets: Annotated[str, Choice("attention", "linear")] = "linear"
    top: Annotated[float, Choice(0.25, 0.5, 1.0)] = 1.0

    def alpha(self) -> float:
        """Return what peft divides by the rank, so that the product counts `scale` times at any."""
        return self.scale * self.rank

    def apply(self, model: nn.Module) -> None:
        """Freeze the model, and put the thin matrices into it. Raises BadInput where it has no such layers."""
        learned = {"r": self.rank, "lora_alpha": self.alpha(), "lora_dropout": self.dropout}
        targets = linears_of(model, self.targets, self.top)
        inject("LoraConfig", model, target_modules=targets, **learned, **self.form)
