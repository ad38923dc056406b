"""IA3: learned gains for what the matrices of attention say and for what those of the feed-forward part read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import nn

from deepmine_auto import Choice, Tuning, inject, linears_of


@dataclass(frozen=True, kw_only=True)
class Ia3(Tuning):
    """Gains begin at one, so that the model begins as it was, and do not decay; they want a large learning rate. The
    paper has them for keys, values and the inside of the feed-forward part alone; here every matrix of a block has
    some, in the highest share `top` of the blocks, at least one."""

    name: ClassVar[str] = "ia3"
    source: ClassVar[str] = "arXiv:2205.05638"
    rate: ClassVar[float] = 5e-3
    needs: ClassVar[str] = "peft"

    top: Annotated[float, Choice(0.25, 0.5, 1.0)] = 1.0

    def apply(self, model: nn.Module) -> None:
        """Freeze the model, and put the gains into it. Raises BadInput where it has no such layers."""
        mixing = set(linears_of(model, "attention", self.top))
        others = [each for each in linears_of(model, "linear", self.top) if each not in mixing]
        inject("IA3Config", model, target_modules=[*mixing, *others], feedforward_modules=others)
        gains: list[Any] = [each for name, each in model.named_parameters() if ".ia3_l." in name]
        for each in gains:
            each.decays = False  # peft keeps them as matrices of one row or column
