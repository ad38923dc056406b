"""What was known when a trial was proposed. It stands in the trial's own row, so that the proposal can be made again.

Trials are proposed by number, and a report has its seq; but with several workers no row says whether a trial ended
before or after another was proposed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from optuna.trial import FrozenTrial

ATTRIBUTE = "deepmine:known"
"""The system attribute of a trial's row."""


class Known(NamedTuple):
    """The last report's seq, and the numbers of the trials that had no end yet."""

    seq: int
    running: tuple[int, ...]


def write_known(row: FrozenTrial, seq: int, trials: Iterable[FrozenTrial]) -> None:
    """Note in a row that is about to be written what its proposal was made from."""
    running = [each.number for each in trials if not each.state.is_finished()]
    row.system_attrs[ATTRIBUTE] = {"seq": seq, "running": running}


def known_of(attrs: dict[str, Any]) -> Known | None:
    """Read it from system attributes; None in rows of schema 0001."""
    found = attrs.get(ATTRIBUTE)
    return Known(int(found["seq"]), tuple(found["running"])) if found else None
