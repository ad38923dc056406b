"""What scores on the locked test are worth: bootstrap intervals, and the paired difference to the baseline."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from deepmine_auto.contracts import Task

RESAMPLES = 1000
LEVEL = (2.5, 97.5)


@dataclass(frozen=True)
class Evidence:
    """Scores of the exported weights and of the baseline on the test rows; intervals hold 95 %."""

    objective: str
    baseline_name: str
    rows: int
    scores: dict[str, float]
    baseline: dict[str, float]
    interval: tuple[float, float]
    lead: float
    lead_interval: tuple[float, float]

    @property
    def significant(self) -> bool:
        """Whether the interval of the lead leaves out zero."""
        low, high = self.lead_interval
        return low > 0 or high < 0

    def sentence(self) -> str:
        """The verdict in words, such as `macro-F1 0.871 [0.836, 0.903], 6.3 points over tf-idf [2.9, 9.8]`."""
        low, high = self.interval
        head = f"{spoken(self.objective)} {self.scores[self.objective]:.3f} [{low:.3f}, {high:.3f}]"
        if not self.significant:
            return f"{head}, no significant difference to {self.baseline_name}"
        low, high = sorted(100 * abs(each) for each in self.lead_interval)
        side = "over" if self.lead > 0 else "behind"
        return f"{head}, {abs(100 * self.lead):.1f} points {side} {self.baseline_name} [{low:.1f}, {high:.1f}]"

    def to_json(self) -> dict[str, Any]:
        """Return plain values, with the sentence."""
        return {**asdict(self), "significant": self.significant, "sentence": self.sentence()}


def spoken(objective: str) -> str:
    """A score's name for people: macro_f1 is macro-F1."""
    return objective.replace("_f1", "-F1").replace("_", " ")


def weigh(
    task: Task, objective: str, outputs: np.ndarray, baseline: np.ndarray, targets: np.ndarray, seed: int
) -> Evidence:
    """Compare outputs (N, ...) with the baseline's on the same rows, by a paired bootstrap over rows."""
    rng = np.random.default_rng(seed)
    sign = 1.0 if task.directions[objective] == "maximize" else -1.0

    def value(of: np.ndarray, rows: np.ndarray) -> float:
        return task.scores(of[rows], targets[rows])[objective]

    drawn = [rng.integers(len(targets), size=len(targets)) for _ in range(RESAMPLES)]
    own = np.array([value(outputs, rows) for rows in drawn])
    leads = sign * (own - np.array([value(baseline, rows) for rows in drawn]))
    scores, beside = task.scores(outputs, targets), task.scores(baseline, targets)
    lead = sign * (scores[objective] - beside[objective])
    return Evidence(objective, task.baseline_name, len(targets), scores, beside, _interval(own), lead, _interval(leads))


def intervals(task: Task, outputs: np.ndarray, targets: np.ndarray, seed: int = 0) -> dict[str, tuple[float, float]]:
    """The 95 % interval of every score of outputs (N, ...), by a bootstrap over rows."""
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(len(targets), size=len(targets)) for _ in range(RESAMPLES))
    found = [task.scores(outputs[rows], targets[rows]) for rows in drawn]
    return {name: _interval(np.array([each[name] for each in found])) for name in found[0]}


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, LEVEL)
    return float(low), float(high)
