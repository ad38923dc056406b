"""What a study optimises, and what its models may cost: scores of the task, and costs that every trial measures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from deepmine_auto.contracts import Direction
from deepmine_auto.errors import BadInput, unknown

COSTS: dict[str, Direction] = {"latency_ms": "minimize", "peak_mb": "minimize", "params_million": "minimize"}
"""What every report carries beside the task's scores: the time of one row of median length and the peak memory of a
training step, on the device that the trial ran on, and the number of parameters."""


class Objective(NamedTuple):
    """A score or cost, and which way is better."""

    name: str
    direction: Direction


UNKNOWN = 1e9
"""So far over every limit is a metric that was not measured; a database cannot hold infinity everywhere."""


class Limit(NamedTuple):
    """A bound on a score or cost; `sign` is 1 where values must not be larger, -1 where they must not be smaller."""

    name: str
    sign: int
    bound: float

    def excess(self, metrics: Mapping[str, float | None]) -> float:
        """How far metrics are over the limit: above 0 is not allowed. What is not known is not allowed either."""
        value = metrics.get(self.name)
        return UNKNOWN if value is None else self.sign * (value - self.bound)

    def __str__(self) -> str:
        return f"{self.name}{'<=' if self.sign > 0 else '>='}{self.bound:g}"


def objectives_from(names: Sequence[str], scores: Mapping[str, Direction], task: str) -> tuple[Objective, ...]:
    """Read `--objective`s; the first is the one that trials are pruned by. Raises BadInput."""
    known = {**scores, **COSTS}
    for name in names:
        if name not in known:
            raise unknown(name, known, f"objective of the task '{task}'")
    if len(set(names)) < len(names):
        raise BadInput("An objective was given twice.", "Name each --objective once.")
    if names[0] in COSTS:
        raise BadInput(
            f"'{names[0]}' cannot be the first objective: it does not change while a model learns.",
            f"Name a score first: {', '.join(scores)}.",
        )
    return tuple(Objective(name, known[name]) for name in names)


LIMIT = re.compile(r"\s*(\w+)\s*(<=|>=|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")


def limits_from(texts: Iterable[str], scores: Mapping[str, Direction], task: str) -> tuple[Limit, ...]:
    """Read `--limit`s such as `latency_ms<=5`; strict signs mean the same as the others. Raises BadInput."""
    known = {**scores, **COSTS}
    limits = []
    for text in texts:
        found = LIMIT.fullmatch(text)
        if not found:
            raise BadInput(f"'{text}' is no limit.", "Write it as 'latency_ms<=5'.")
        if found[1] not in known:
            raise unknown(found[1], known, f"score or cost of the task '{task}'")
        limits.append(Limit(found[1], 1 if found[2].startswith("<") else -1, float(found[3])))
    return tuple(limits)


def in_points(direction: Direction, *scores: float) -> bool:
    """Whether a lead is told in hundredths: of shares, which nats are not."""
    return direction == "maximize" and all(0 <= each <= 1 for each in scores)
