"""IA3: learned gains for what the matrices of attention say and for what those of the feed-forward part read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from deepmine_auto import Tuning, inject, linears_of


@dataclass(frozen=True, kw_only=True)
class Ia3(Tuning):
    """Gains begin at one, so that the model begins as it was; they want a large learning rate. The paper has them for
    keys, values and the inside of the feed-forward part alone; here every matrix of a block has some."""

    name: ClassVar[str] = "ia3"
    source: ClassVar[str] = "arXiv:2205.05638"
    needs: ClassVar[str] = "peft"

    def apply(self, model: nn.Module) -> None:
        """Freeze the model, and put the gains into it. Raises BadInput where it has no such layers."""
        mixing = set(linears_of(model, "attention"))
        others = [each for each in linears_of(model, "linear") if each not in mixing]
        inject("IA3Config", model, target_modules=[*mixing, *others], feedforward_modules=others)
