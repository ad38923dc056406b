"""Random search: the sampler that every other must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import optuna

from deepmine_auto import Sampler


@dataclass(frozen=True, kw_only=True)
class Random(Sampler):
    """Each param is drawn by itself, whatever the trials before have shown."""

    name: ClassVar[str] = "random"
    source: ClassVar[str] = "https://jmlr.org/papers/v13/bergstra12a.html"

    def build(self, seed: int) -> optuna.samplers.BaseSampler:
        """Make Optuna's RandomSampler."""
        return optuna.samplers.RandomSampler(seed=seed)
