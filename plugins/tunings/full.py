"""Everything learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from deepmine_auto import Tuning


@dataclass(frozen=True, kw_only=True)
class Full(Tuning):
    """All weights of the pretrained model learn, as they did before."""

    name: ClassVar[str] = "full"
    source: ClassVar[str] = "arXiv:1810.04805"
    rate: ClassVar[float] = 5e-5

    def apply(self, model: nn.Module) -> None:
        """Leave all as it is."""
