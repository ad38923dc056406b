"""In how many parts a batch is worked off, so that it fits into memory: found once for a shape, and remembered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from deepmine_auto.space import FIDELITY
from deepmine_auto.study.history import History, Key

Params = Mapping[str, Any]

LASTING = ("training/epochs", "training/patience", FIDELITY)
"""What says how long is trained, beside the schedule."""


def halvings_known(history: History, params_of: Callable[[Key], Params], params: Params) -> int:
    """How often the batch of something of this shape was halved before it fitted, or failed at last; 0 where all fitted
    as they were."""
    shape = shape_of(params)
    halved = ((key, row) for key, each in history.standing.items() for row in each.attempts if row["halvings"])
    return max((row["halvings"] for key, row in halved if shape_of(params_of(key)) == shape), default=0)


def shape_of(params: Params) -> dict[str, Any]:
    """The params that decide how much memory a step takes: all but those of fractions, such as rates and dropout, but
    for shares of blocks, and those of how long is trained."""
    sized = {name: each for name, each in params.items() if not isinstance(each, float) or name.endswith("/top")}
    return {name: value for name, value in sized.items() if name not in LASTING and not name.startswith("schedule/")}
