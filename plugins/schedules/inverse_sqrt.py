"""The inverse square root of the number of steps, as the first transformer was trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from deepmine_auto import Float, Schedule


@dataclass(frozen=True, kw_only=True)
class InverseSqrt(Schedule):
    """1 / sqrt(1 + done / timescale): after the share `timescale` of the steps the rate is 1 / sqrt(2) of its height.
    The paper's timescale is its warm-up, 4,000 of 100,000 steps: 0.04. The rate never comes down to 0."""

    name: ClassVar[str] = "inverse_sqrt"
    source: ClassVar[str] = "arXiv:1706.03762"

    timescale: Annotated[float, Float(0.01, 1.0, log=True)] = 0.04

    def factor(self, done: float) -> float:
        """Fall fast at first, and ever more slowly."""
        return 1 / math.sqrt(1 + done / self.timescale)
