"""When a search ends: a number of trials, or a time, counted from the study's rows."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

from deepmine_auto.errors import BadInput

FINALS_SHARE = 0.3
"""At most this share of a time budget is kept for the reruns."""

FIRST_SHARE = 0.5
"""At most this share, where a first rerun of the first two finalists needs it: without any, the luckiest trial wins."""

REFIT_SHARE = 0.2
"""At most this share is kept for a refit: where it takes more, the search would have too little."""

SLACK = 1.1
"""So many times as long as expected may a rerun take."""

SHORTEST_SECONDS = 30.0
"""Below this no model can be trained, exported and verified."""

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds_of(text: str) -> float:
    """Read a duration such as 90s, 5m, 1h30m or 300 (seconds). Raises BadInput."""
    parts = re.fullmatch(r"(?:(\d+(?:\.\d+)?[smhd])+|\d+(?:\.\d+)?)", text.strip())
    if not parts:
        raise BadInput(f"'{text}' is no duration.", "Write 90s, 5m or 1h30m.")
    units = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    return sum(float(number) * UNITS[unit] for number, unit in units) if units else float(text)


def duration(seconds: float) -> str:
    """A time such as 8s, 4m03s, 2h05m or 3d04h.

    >>> duration(243)
    '4m03s'
    """
    whole = max(0, round(seconds))
    for unit, smaller, size, part in (("d", "h", 86400, 3600), ("h", "m", 3600, 60), ("m", "s", 60, 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // part:02d}{smaller}"
    return f"{whole}s"


@dataclass(frozen=True)
class Budget:
    """What a study may use; None is no limit. The first that is reached ends the search."""

    trials: int | None = None
    seconds: float | None = None
    gpu_hours: float | None = None

    def check(self) -> Budget:
        """Return it, or raise BadInput if nothing can be learned in it."""
        if self.trials is not None and self.trials < 1:
            raise BadInput(f"A study of {self.trials} trials learns nothing.", "Give --trials 1 or more.")
        if self.seconds is not None and self.seconds < SHORTEST_SECONDS:
            asked = f"A time budget of {self.seconds:g} s is too short to train, export and verify a model."
            raise BadInput(asked, f"Give --time-budget {SHORTEST_SECONDS:g}s or more.")
        if self.gpu_hours is not None and not 0 < self.gpu_hours < math.inf:
            raise BadInput(f"{self.gpu_hours:g} GPU hours are no budget.", "Give --max-gpu-hours a number above 0.")
        return self

    @property
    def set(self) -> bool:
        """Whether anything is limited."""
        return any(each is not None for each in (self.trials, self.seconds, self.gpu_hours))

    def refuse_endless(self, gpus: float) -> None:
        """Raise BadInput where nothing ends a search that holds so many GPUs: without any, GPU hours never pass."""
        if self.trials is None and self.seconds is None and not gpus:
            raise BadInput("--max-gpu-hours ends nothing where no GPU is held.", "Give --time-budget or --trials.")

    def seconds_on(self, gpus: float) -> float:
        """The seconds that it leaves a search which holds so many GPUs; infinite where it counts trials alone."""
        seconds = [] if self.seconds is None else [self.seconds]
        seconds += [self.gpu_hours * 3600 / gpus] if self.gpu_hours is not None and gpus else []
        return min(seconds, default=math.inf)

    def __str__(self) -> str:
        trials = [] if self.trials is None else [f"{self.trials} trials"]
        seconds = [] if self.seconds is None else [f"{self.seconds:g} s"]
        hours = [] if self.gpu_hours is None else [f"{self.gpu_hours:g} GPU hours"]
        return " or ".join([*trials, *seconds, *hours])


def used(sessions: Iterable[Mapping[str, Any]]) -> tuple[float, float]:
    """The seconds and the GPU hours that the sessions of drivers have used."""
    each = [(float(row["spent"]), float(row["gpus"])) for row in sessions]
    return sum(spent for spent, _ in each), sum(spent * gpus for spent, gpus in each) / 3600


def reserve(budget_seconds: float, closing: float, reruns: Iterable[float], slots: int) -> float:
    """Seconds to keep at the end: the closing always, and time for as many reruns (expected seconds each, in the order
    in which they are begun, over `slots` workers) as end within their share of the budget. Time in which none would
    end is the search's."""
    busy, kept = [0.0] * max(1, slots), 0.0
    for at, seconds in enumerate(reruns):
        end = heappop(busy) + SLACK * seconds
        if end > (FIRST_SHARE if at < 2 else FINALS_SHARE) * budget_seconds:
            break
        heappush(busy, end)
        kept = max(kept, end)
    return closing + kept


def most_reserved(budget_seconds: float, closing: float) -> float:
    """Seconds that are kept at the end at most, whoever the finalists are."""
    return closing + FIRST_SHARE * budget_seconds
