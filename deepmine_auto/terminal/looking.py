"""What can be seen of a study from its rows: its trials, its winner, its time. Reading only, also while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from deepmine_auto.contracts import Direction
from deepmine_auto.errors import BadInput, unknown
from deepmine_auto.storage import tables
from deepmine_auto.storage.place import Place, read
from deepmine_auto.storage.store import Row, Store, StudyRow
from deepmine_auto.study.checkpoints import Standing
from deepmine_auto.study.finals import as_good, feasible
from deepmine_auto.study.pareto import front
from deepmine_auto.study.pruning import oriented
from deepmine_auto.study.spaces import Spaces


@dataclass(frozen=True)
class SeenTrial:
    """A trial as a person asks for it: `value` is its best, `params` is all that its model was built from.

    `values` has what every objective was when the first was best. One that is not feasible is over a limit of the
    study, or diverged, and cannot win.
    """

    number: int
    state: str
    value: float | None
    values: Mapping[str, float]
    feasible: bool
    seconds: float | None
    size: float | None
    params: Mapping[str, Any]
    cause: str
    reason: str

    @property
    def over_limit(self) -> bool:
        """Whether it cannot win because it costs too much."""
        return not self.feasible and self.cause != "diverged"

    def to_json(self) -> Row:
        """Return plain values."""
        return {
            "number": self.number,
            "state": self.state,
            "value": self.value,
            "values": dict(self.values),
            "feasible": self.feasible,
            "seconds": self.seconds,
            "parameters_million": self.size,
            "cause": self.cause,
            "reason": self.reason,
            "params": dict(self.params),
        }


class SeenStudy:
    """One study of a database."""

    def __init__(self, store: Store, study: StudyRow) -> None:
        self.store, self.row = store, study
        self.direction: Direction = study.direction

    @property
    def name(self) -> str:
        """Its name."""
        return self.row.name

    @property
    def result(self) -> Row | None:
        """What its finals found; None while it is unfinished."""
        return self.row.result

    @cached_property
    def seconds(self) -> float:
        """How long it was worked on, over all sessions."""
        return float(sum(row["spent"] for row in self.store.sessions(self.row.id)))

    @cached_property
    def trials(self) -> list[SeenTrial]:
        """All trials by number."""
        curves: dict[int, Standing] = {}
        for report in self.store.rows(tables.reports, self.row.id):
            if report["kind"] == "trial":
                curves.setdefault(report["number"], Standing()).reports.append(report)
        spaces = Spaces.of(self.store, self.row)
        found = self.store.trials(self.row.id)
        return [self._seen(each, curves.get(each.number, Standing()), spaces) for each in found]

    def _seen(self, trial: FrozenTrial, curve: Standing, spaces: Spaces) -> SeenTrial:
        attrs, best = trial.user_attrs, curve.best(self.direction)
        seconds = attrs.get("seconds", curve.reports[-1]["seconds"] if curve.reports else None)
        return SeenTrial(
            number=trial.number,
            state={TrialState.FAIL: "failed"}.get(trial.state, trial.state.name.lower()),
            value=best["value"] if best else None,
            values=self._values(best),
            feasible=feasible(trial) and not (best and self._over_limit(best)),
            seconds=seconds,
            size=attrs.get("params_million"),
            params=spaces.complete(trial.number, trial.params),
            cause=attrs.get("cause", ""),
            reason=str(attrs.get("reason", "")).strip(),
        )

    def _values(self, best: Row | None) -> dict[str, float]:
        found = {} if best is None else {**best["metrics"], self.row.objectives[0].name: best["value"]}
        return {each.name: found[each.name] for each in self.row.objectives if found.get(each.name) is not None}

    def _over_limit(self, best: Row) -> bool:
        return any(each.excess(best["metrics"]) > 0 for each in self.row.limits)

    @cached_property
    def reruns(self) -> list[Row]:
        """What the finals trained again, by number."""
        return self.store.rows(tables.reruns, self.row.id)

    @property
    def as_good(self) -> list[int]:
        """The finalists that may be as good as the winner, for all that the finals show."""
        return as_good(self.result["winner"], self.reruns, self.direction) if self.result else []

    @property
    def behind(self) -> list[int]:
        """The finalists of which the finals show that the winner is better."""
        beside = {row["trial"] for row in self.reruns if row["state"] == "COMPLETE"}
        return sorted(beside - {*self.as_good, self.result["winner"]}) if self.result else []

    @property
    def several(self) -> bool:
        """Whether it has more than one objective."""
        return len(self.row.objectives) > 1

    def best(self, most: int) -> list[SeenTrial]:
        """The trials that may win, best first by the first objective: so many; with several objectives the whole
        Pareto front, because none on it is better than another."""
        able = [each for each in self.trials if each.feasible and each.state != "failed" and each.value is not None]
        if self.several:
            able = self._front(able)
            most = len(able)
        return sorted(able, key=lambda each: (-oriented(each.value or 0.0, self.direction), each.number))[:most]

    def _front(self, trials: list[SeenTrial]) -> list[SeenTrial]:
        names = [each.name for each in self.row.objectives]
        whole = [each for each in trials if len(each.values) == len(names)]
        points = [[each.values[name] for name in names] for each in whole]
        return [whole[at] for at in front(points, [each.direction for each in self.row.objectives])]


def open_store(storage: Place) -> Store:
    """Open a study database for reading. Raises BadInput where there is none, DatabaseAway where it cannot be read."""
    return read(storage)


def see(storage: Place, name: str | None = None) -> SeenStudy:
    """Look at a study by its name, or at the newest. Raises BadInput with the nearest name."""
    store = open_store(storage)
    names = store.names()
    if not names:
        raise BadInput(f"There is no study in {storage}.", f"Begin one: `deepmine-auto search{store.flag}`.")
    if name is not None and name not in names:
        raise unknown(name, names, f"study in {storage}", f"`deepmine-auto studies{store.flag}` lists them all.")
    return SeenStudy(store, store.study(name or names[-1]))


def see_all(storage: Place) -> list[SeenStudy]:
    """All studies of a database, oldest first."""
    store = open_store(storage)
    return [SeenStudy(store, store.study(name)) for name in store.names()]
