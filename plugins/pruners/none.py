"""No pruning: every trial runs to its own end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from deepmine_auto import Pruner, Report, Verdict


@dataclass(frozen=True, kw_only=True)
class KeepAll(Pruner):
    """What other pruners are compared with."""

    name: ClassVar[str] = "none"
    source: ClassVar[str] = "https://optuna.readthedocs.io/en/stable/reference/generated/optuna.pruners.NopPruner.html"

    def keep(self, reports: Sequence[Report], trial: int, share: int) -> Verdict:
        """Keep the trial."""
        del reports, trial, share
        return Verdict(keep=True)
