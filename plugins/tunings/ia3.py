"""IA3: a learned gain for what keys, values and the feed-forward part say; a few thousand numbers in all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from deepmine_auto import Tuning, inject, linears_of


@dataclass(frozen=True, kw_only=True)
class Ia3(Tuning):
    """Gains begin at one, so that the model begins as it was; they want a large learning rate."""

    name: ClassVar[str] = "ia3"
    source: ClassVar[str] = "arXiv:2205.05638"

    def apply(self, model: nn.Module) -> None:
        """Freeze the model, and put the gains into it. Raises BadInput where it has no such layers."""
        mixing = set(linears_of(model, "attention"))
        others = [each for each in linears_of(model, "linear") if each not in mixing]
        inject("IA3Config", model, target_modules=[*mixing, *others], feedforward_modules=others)
