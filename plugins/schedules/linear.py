"""Linear decay: what the theory of stochastic gradient descent asks for where its length is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from deepmine_auto import Schedule


@dataclass(frozen=True, kw_only=True)
class LinearDecay(Schedule):
    """A straight line from the height down to 0."""

    name: ClassVar[str] = "linear"
    source: ClassVar[str] = "arXiv:2310.07831"

    def factor(self, done: float) -> float:
        """Fall by as much each step."""
        return 1 - done
