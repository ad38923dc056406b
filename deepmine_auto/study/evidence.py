"""What scores on the locked test are worth: bootstrap intervals, and the paired difference to the baseline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from deepmine_auto.contracts import Direction, Task
from deepmine_auto.objectives import in_points

RESAMPLES = 1000
LEVEL = (2.5, 97.5)


@dataclass(frozen=True)
class Evidence:
    """Scores of the exported weights and of the baseline on the test rows; intervals hold 95 %. The lead is positive
    where the weights are better, whichever direction that is."""

    objective: str
    direction: Direction
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
        """The verdict in words, such as `macro-F1 0.871 [0.836, 0.903], 6.3 points over tf-idf [2.9, 9.8]`, or, where
        less is better, `log loss 0.410 [0.352, 0.474], 0.063 below tf-idf [0.029, 0.098]`."""
        low, high = self.interval
        head = f"{spoken(self.objective)} {self.scores[self.objective]:.3f} [{low:.3f}, {high:.3f}]"
        if not self.significant:
            return f"{head}, no significant difference to {self.baseline_name}"
        low, high = sorted(abs(each) for each in self.lead_interval)
        if not in_points(self.direction, self.scores[self.objective], self.baseline[self.objective]):
            side = "below" if (self.lead > 0) == (self.direction == "minimize") else "above"
            return f"{head}, {abs(self.lead):.3f} {side} {self.baseline_name} [{low:.3f}, {high:.3f}]"
        side, points = "over" if self.lead > 0 else "behind", f"{100 * abs(self.lead):.1f} points"
        return f"{head}, {points} {side} {self.baseline_name} [{100 * low:.1f}, {100 * high:.1f}]"

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
    direction = task.directions[objective]
    sign = 1.0 if direction == "maximize" else -1.0

    def value(of: np.ndarray, rows: np.ndarray) -> float:
        return task.scores(of[rows], targets[rows])[objective]

    drawn = [*_drawn(targets, _over_classes(objective), seed)]
    own = np.array([value(outputs, rows) for rows in drawn])
    leads = sign * (own - np.array([value(baseline, rows) for rows in drawn]))
    scores, beside = task.scores(outputs, targets), task.scores(baseline, targets)
    lead = sign * (scores[objective] - beside[objective])
    return Evidence(
        objective, direction, task.baseline_name, len(targets), scores, beside, _interval(own), lead, _interval(leads)
    )


def intervals(task: Task, outputs: np.ndarray, targets: np.ndarray, seed: int = 0) -> dict[str, tuple[float, float]]:
    """The 95 % interval of every score of outputs (N, ...), by a bootstrap over rows."""
    names, found = [*task.scores(outputs, targets)], dict[str, tuple[float, float]]()
    for by_class in {*map(_over_classes, names)}:
        drawn = [task.scores(outputs[rows], targets[rows]) for rows in _drawn(targets, by_class, seed)]
        asked = [each for each in names if _over_classes(each) == by_class]
        found |= {name: _interval(np.array([each[name] for each in drawn])) for name in asked}
    return {name: found[name] for name in names}


def _over_classes(score: str) -> bool:
    """Whether a score is a mean over classes, of which its name tells: macro_f1."""
    return score.startswith("macro_")


def _drawn(targets: np.ndarray, by_class: bool, seed: int) -> Iterator[np.ndarray]:
    """Rows of tests drawn anew, with replacement; by class, each class keeps its number of rows.

    A draw that misses a rare class leaves it out of a mean over classes. Where the rare ones are the hard ones, the
    whole test would score below its own interval.
    """
    rng, count = np.random.default_rng(seed), len(targets)
    if not by_class or targets.ndim > 1:
        return (rng.integers(count, size=count) for _ in range(RESAMPLES))
    ordered = np.argsort(targets, kind="stable")
    _, first, rows = np.unique(targets[ordered], return_index=True, return_counts=True)
    begin_N, end_N = np.repeat(first, rows), np.repeat(first + rows, rows)
    return (ordered[rng.integers(begin_N, end_N)] for _ in range(RESAMPLES))


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, LEVEL)
    return float(low), float(high)
