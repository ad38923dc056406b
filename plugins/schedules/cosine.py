"""Cosine annealing, without restarts: slow at both ends, fastest in the middle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from deepmine_auto import Schedule


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Half a cosine from the height down to 0."""

    name: ClassVar[str] = "cosine"
    source: ClassVar[str] = "arXiv:1608.03983"

    def factor(self, done: float) -> float:
        """Fall by half in half of the steps."""
        return 0.5 * (1 + math.cos(math.pi * done))
