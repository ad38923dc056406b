"""Only what is added learns: the biases, a thousandth of a model's weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from deepmine_auto import Tuning, biases_of


@dataclass(frozen=True, kw_only=True)
class Bitfit(Tuning):
    """Needs a learning rate a hundred times that of `full`."""

    name: ClassVar[str] = "bitfit"
    source: ClassVar[str] = "arXiv:2106.10199"
    rate: ClassVar[float] = 3e-3

    def apply(self, model: nn.Module) -> None:
        """Freeze all but the biases. Raises BadInput where the model has none."""
        names = biases_of(model)
        for name, each in model.named_parameters():
            each.requires_grad_(name in names)
