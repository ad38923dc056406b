"""What proposes trials, and what stops them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from deepmine_auto.contracts.plugin import Plugin

if TYPE_CHECKING:
    import optuna


class Sampler(Plugin):
    """What proposes params. It keeps state in rows only, so that a restart proposes the same.

    One that chooses among others writes which into the user attribute `sampler` of the trial."""

    kind = "sampler"

    @abstractmethod
    def build(self, seed: int) -> optuna.samplers.BaseSampler:
        """Make the Optuna sampler for one proposal."""

    def startup(self) -> int:
        """Return how many trials it draws by chance before it looks at any: these may come in another order."""
        return 0


class Report(NamedTuple):
    """An intermediate value: which trial, at which share of its own budget (in thousandths), the value of the first
    objective with larger always better, its place in the one order of the study, and the values of all objectives;
    whether it is the last because the trial came to its end, by its steps or by its patience; and whether its model
    may win: where its costs are over a limit, no pruner sees it among the others."""

    trial: int
    share: int
    value: float
    seq: int
    values: tuple[float, ...] = ()
    last: bool = False
    able: bool = True


class Verdict(NamedTuple):
    """A pruner's answer and its grounds: the value judged, the cutoff, the rung in thousandths."""

    keep: bool
    value: float | None = None
    cutoff: float | None = None
    rung: int | None = None


class Pruner(Plugin):
    """What stops hopeless trials: a pure function of the reports, so that a restart decides the same."""

    kind = "pruner"

    @abstractmethod
    def keep(self, reports: Sequence[Report], trial: int, share: int) -> Verdict:
        """Judge `trial` at its newest report, that of `share`, which is the last of `reports`. Before it stand all that
        came earlier, in the order of `seq`, but for those of other trials whose models may not win."""

    def rungs(self) -> Sequence[int]:
        """The shares, in thousandths, at which trials are compared: at the first report at or past each a checkpoint is
        written. `keep` is asked at every report all the same, and may stop a trial at any."""
        return ()
