"""How long a worker may be silent before it counts as hung: by its own pace, else by that of the slowest trial."""

from __future__ import annotations

from collections.abc import Mapping

from deepmine_auto.study.checkpoints import Standing
from deepmine_auto.study.history import Key

TIMES = 20.0
"""So many times its usual seconds between two reports."""

LEAST = 120.0
"""Seconds; a worker that writes to a slow disk is not hung."""

UNKNOWN = 3600.0
"""Seconds before the first report of a whole study, and before the first message of any worker: what it does until then
has another pace. It prepares data, and may read all rows with a large model once."""


def patience(key: Key, standings: Mapping[Key, Standing], spoken: bool = True) -> float:
    """Seconds without a message that are still in order, where the worker has `spoken` before."""
    own = _pace(standings[key]) if key in standings else None
    paces = [own] if own is not None else [pace for each in standings.values() if (pace := _pace(each)) is not None]
    return max(LEAST if spoken else UNKNOWN, TIMES * max(paces)) if paces else UNKNOWN


def _pace(standing: Standing) -> float | None:
    """Seconds of training from one report to the next."""
    if not standing.reports:
        return None
    return float(standing.reports[-1]["seconds"]) / len({row["step"] for row in standing.reports})
