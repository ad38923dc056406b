"""NSGA-II: crosses and mutates the best of each generation; made for several objectives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import optuna

from deepmine_auto import Sampler


@dataclass(frozen=True, kw_only=True)
class Nsga2(Sampler):
    """For hundreds of trials: the first generation is random, and only complete trials become parents.

    The generation of a trial is a system attribute of its row, and must be kept with it."""

    name: ClassVar[str] = "nsga2"
    source: ClassVar[str] = "https://doi.org/10.1109/4235.996017"

    population_size: int = 30
    """How many complete trials make a generation."""

    def build(self, seed: int) -> optuna.samplers.BaseSampler:
        """Make Optuna's NSGAIISampler."""
        return optuna.samplers.NSGAIISampler(population_size=self.population_size, seed=seed)
