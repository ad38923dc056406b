"""Warm-up, a constant learning rate, and a short cooldown at the end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from deepmine_auto import Float, Schedule


@dataclass(frozen=True, kw_only=True)
class WarmupStableDecay(Schedule):
    """The height is kept until the last share `cooldown` of the steps, over which the rate falls to 0 as 1 - sqrt does:
    steeply at first."""

    name: ClassVar[str] = "warmup_stable_decay"
    source: ClassVar[str] = "arXiv:2405.18392"

    cooldown: Annotated[float, Float(0.1, 0.5)] = 0.2

    def factor(self, done: float) -> float:
        """Stay at the height, and fall at the end."""
        left = (1 - done) / self.cooldown
        return 1.0 if left >= 1 else 1 - math.sqrt(1 - left)
