"""Every query on the study database. Rows in, rows out; what they mean is the ledger's business."""

from __future__ import annotations

import json
import os
import shlex
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import ColumnElement, Table, Update, and_, delete, func, insert, inspect, select, update
from sqlalchemy.exc import IntegrityError

from deepmine_auto import failpoints
from deepmine_auto.contracts import Direction
from deepmine_auto.errors import BadInput, DeepmineError
from deepmine_auto.objectives import COSTS, Limit, Objective
from deepmine_auto.storage import tables
from deepmine_auto.storage.new_trial import insert_trial

Row = dict[str, Any]

DIRECTIONS: dict[StudyDirection, Direction] = {
    StudyDirection.MAXIMIZE: "maximize",
    StudyDirection.MINIMIZE: "minimize",
}


READ_AT_ONCE = 200
"""Trials that are read together."""

NO_ID = 2**31 - 1
"""No trial has this id: Optuna reads those that are named, and those with a greater one."""


def shown(objective: str) -> str:
    """An objective's name on a dashboard's axes."""
    return objective if objective in COSTS else f"val/{objective}"


def constraint_attrs(constraints: Mapping[str, float]) -> Row:
    """How Optuna keeps constraints, and how its dashboard still reads them."""
    if not constraints:
        return {}
    return {
        **{f"constraints:{name}": each for name, each in constraints.items()},
        "constraints": [*constraints.values()],
    }


def now() -> str:
    """The time of day in UTC, for people; nothing is decided by it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def sharing(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Let trials share names, texts and distributions. Optuna reads copies with every row, most of what it takes."""
    known: dict[Any, Any] = {}

    def one(thing: Any, *more: Any) -> Any:
        return known.setdefault((type(thing), thing, *more), thing)

    def ranged(found: BaseDistribution) -> Any:
        """To Python 1, 1.0 and True are one choice; to the names of params they are three."""
        return one(found, *(type(each) for each in getattr(found, "choices", ())))

    def shared(trial: FrozenTrial) -> FrozenTrial:
        trial.params = {
            one(name): one(value) if isinstance(value, str) else value for name, value in trial.params.items()
        }
        given = {one(name): ranged(found) for name, found in trial.distributions.items()}
        same = tuple((name, id(found)) for name, found in given.items())  # what is known lives on, and so does its id
        trial.distributions = known.setdefault(same, given)
        return trial

    return [shared(each) for each in trials]


@dataclass(frozen=True)
class StudyRow:
    """A study as the database has it."""

    id: int
    name: str
    directions: tuple[StudyDirection, ...]
    folder: str
    spec: Row
    result: Row | None
    flag: str = ""

    @property
    def typed(self) -> str:
        """The study as a command takes it: its name, and where it is unless every command knows."""
        return f"{shlex.quote(self.name)}{self.flag}"

    @property
    def direction(self) -> Direction:
        """The direction of the first objective."""
        return self.objectives[0].direction

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What the study optimises."""
        names = self.spec.get("objectives", [self.spec["objective"]])  # studies of schema 0001 have one
        return tuple(Objective(name, DIRECTIONS[way]) for name, way in zip(names, self.directions, strict=True))

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What its models may cost."""
        return tuple(Limit(*each) for each in self.spec.get("limits", ()))

    @property
    def varied(self) -> str:
        """What differs between the reruns of a trial: their splits, or their seeds alone where the user gave validation
        rows."""
        return "seed" if self.spec.get("validation_given") else "split"


def _key(table: Table, row: Row) -> ColumnElement[bool]:
    """Where a table has the row with the same key."""
    return and_(*(each == row[each.name] for each in table.primary_key.columns))


def _lasted(study_id: int, epoch: int, spent: float) -> Update:
    """How long a session has lasted, to be written."""
    column = tables.sessions.c
    mine = (column.study_id == study_id) & (column.epoch == epoch)
    return update(tables.sessions).where(mine).values(spent=spent)


class Conflict(DeepmineError):
    """What should be written contradicts what stands there: another driver has written it otherwise."""


class Store:
    """The queries over one engine."""

    def __init__(self, storage: RDBStorage, flag: str = "") -> None:
        self.storage, self.flag = storage, flag
        self.engine = storage.engine

    # -- studies -----------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """The studies that are ours, oldest first."""
        if not inspect(self.engine).has_table(tables.studies.name):
            return []
        with self.engine.connect() as connection:
            ours = set(connection.execute(select(tables.studies.c.study_id)).scalars())
        return [each.study_name for each in self.storage.get_all_studies() if each._study_id in ours]

    def create_study(
        self,
        name: str,
        objectives: Sequence[Objective],
        folder: str,
        spec: Row,
        beside: Mapping[Table, Sequence[Row]] | None = None,
    ) -> StudyRow:
        """Write a new study, at once with the rows of ours that it must not go on without, and then what Optuna's tools
        show of it."""
        ways = {direction: way for way, direction in DIRECTIONS.items()}
        study_id = self.storage.create_new_study([ways[each.direction] for each in objectives], name)
        rows: dict[Table, Sequence[Row]] = {tables.studies: [{"folder": folder, "spec": spec}], **(beside or {})}
        with self.engine.begin() as connection:
            for table, found in rows.items():
                if found:
                    connection.execute(insert(table), [{"study_id": study_id, **row} for row in found])
        self.storage.set_study_system_attr(study_id, "study:metric_names", [shown(each.name) for each in objectives])
        shown_spec = {**spec, "space_name": Path(spec["space_name"]).name}
        for key in ("task", "seed", "space_name", "fingerprint"):
            self.storage.set_study_user_attr(study_id, key, shown_spec[key])
        return self.study(name)

    def study(self, name: str) -> StudyRow:
        """One study by its name. Raises KeyError where there is none, BadInput where it is not ours."""
        study_id = self.storage.get_study_id_from_name(name)
        found = self._rows(tables.studies, study_id)
        if not found:
            raise BadInput(f"The study '{name}' was not begun by deepmine-auto.", "Choose another name.")
        row, directions = found[0], tuple(self.storage.get_study_directions(study_id))
        return StudyRow(study_id, name, directions, row["folder"], row["spec"], row["result"], self.flag)

    def set_result(self, study_id: int, result: Row, epoch: int = 0, spent: float = 0.0) -> None:
        """Write what the finals found, and how long the session of this epoch has lasted."""
        with self.engine.begin() as connection:
            where = tables.studies.c.study_id == study_id
            connection.execute(update(tables.studies).where(where).values(result=result))
            connection.execute(_lasted(study_id, epoch, spent))

    def reopen(self, study_id: int, spec: Row) -> None:
        """Write how a study is to go on; what was found before does not count any more."""
        with self.engine.begin() as connection:
            where = tables.studies.c.study_id == study_id
            connection.execute(update(tables.studies).where(where).values(spec=spec, result=None))

    def set_space(self, study_id: int, since: int, name: str, space: Row) -> None:
        """Write the search space that holds from a trial number on, in place of one that no trial came to."""
        mine = (tables.spaces.c.study_id == study_id) & (tables.spaces.c.since == since)
        row = {"study_id": study_id, "since": since, "name": name, "space": space}
        with self.engine.begin() as connection:
            connection.execute(delete(tables.spaces).where(mine))
            connection.execute(insert(tables.spaces).values(**row))

    # -- sessions ----------------------------------------------------------------------------------------------------

    def begin_session(self, study_id: int, gpus: float = 0.0) -> int:
        """Add one to the epoch and return it: from now on an older driver may not write. It holds `gpus` GPUs."""
        session = tables.sessions
        with self.engine.begin() as connection:
            newest = select(func.coalesce(func.max(session.c.epoch), 0)).where(session.c.study_id == study_id)
            epoch = int(connection.execute(newest).scalar_one()) + 1
            row = {"study_id": study_id, "epoch": epoch, "host": socket.gethostname(), "pid": os.getpid(), "gpus": gpus}
            connection.execute(insert(session).values(**row, started=now(), spent=0.0))
        return epoch

    def note_spent(self, study_id: int, epoch: int, spent: float) -> None:
        """Write how long the session of this epoch has lasted, in seconds."""
        with self.engine.begin() as connection:
            connection.execute(_lasted(study_id, epoch, spent))

    def sessions(self, study_id: int) -> list[Row]:
        """All sessions in order."""
        return self._rows(tables.sessions, study_id)

    # -- trials, which are Optuna's ----------------------------------------------------------------------------------

    def trials(self, study_id: int) -> list[FrozenTrial]:
        """All trials by number. They are read some hundred at a time, because Optuna's reading takes many times the
        memory of what it returns."""
        column = models.TrialModel.__table__.c
        with self.engine.connect() as connection:
            found = connection.execute(select(column.trial_id).where(column.study_id == study_id))
            ids = sorted(found.scalars())
        parts = (set(ids[at : at + READ_AT_ONCE]) for at in range(0, len(ids), READ_AT_ONCE))
        return sharing(trial for part in parts for trial in self.storage._get_trials(study_id, None, part, NO_ID))

    def add_trial(self, study_id: int, number: int, template: FrozenTrial) -> FrozenTrial:
        """Write the trial of this number in one transaction, and return it; done again, it changes nothing."""
        try:  # its acknowledgement may have been lost
            trial_id = self.storage.get_trial_id_from_study_id_trial_number(study_id, number)
        except KeyError:
            trial_id = insert_trial(self.engine, study_id, number, template)
        return self.storage.get_trial(trial_id)

    def show_value(self, trial_id: int, step: int, value: float) -> None:
        """Write a point of the curve that dashboards draw; done again, it changes nothing."""
        with suppress(UpdateFinishedTrialError):
            self.storage.set_trial_intermediate_value(trial_id, step, value)

    def finish_trial(
        self,
        trial_id: int,
        state: str,
        values: Sequence[float] | None,
        attrs: Mapping[str, Any],
        constraints: Mapping[str, float],
    ) -> None:
        """Write attributes and end (a state's name), and read them back; done again, it changes nothing.

        Raises Conflict where the trial has ended otherwise.
        """
        with suppress(UpdateFinishedTrialError):
            for key, attr in attrs.items():
                self.storage.set_trial_user_attr(trial_id, key, attr)
            for key, attr in constraint_attrs(constraints).items():
                self.storage.set_trial_system_attr(trial_id, key, attr)
            failpoints.reach("mid_tell")
            self.storage.set_trial_state_values(trial_id, TrialState[state], values)
        found = self.storage.get_trial(trial_id)
        if found.state.name != state or found.values != (list(values) if values else None):
            told = f"{state} {values}", f"{found.state.name} {found.values}"
            raise Conflict(f"Trial {found.number} should have ended as {told[0]}, and stands as {told[1]}.")

    # -- our rows ----------------------------------------------------------------------------------------------------

    def add_report(self, study_id: int, report: Row, epoch: int, spent: float) -> None:
        """Write a report, and how long this session has lasted, in one transaction; done again, it changes nothing.

        Raises Conflict where another report stands in its place.
        """
        row = {"study_id": study_id, **report}
        try:
            with self.engine.begin() as connection:
                connection.execute(insert(tables.reports).values(**row))
                connection.execute(_lasted(study_id, epoch, spent))
        except IntegrityError:
            self._compare(tables.reports, row)

    def add(self, table: Table, study_id: int, row: Row) -> None:
        """Write one row of ours; done again, it changes nothing. Raises Conflict where another stands in its place."""
        whole = {"study_id": study_id, **row}
        try:
            self._insert(table, whole)
        except IntegrityError:
            self._compare(table, whole)

    def put(self, table: Table, study_id: int, row: Row) -> None:
        """Write one row of ours in the place of what stands there."""
        whole = {"study_id": study_id, **row}
        with self.engine.begin() as connection:
            connection.execute(delete(table).where(_key(table, whole)))
            connection.execute(insert(table).values(**whole))

    def _compare(self, table: Table, row: Row) -> None:
        with self.engine.connect() as connection:
            found = dict(connection.execute(select(table).where(_key(table, row))).one()._mapping)
        if any(found[name] != value for name, value in json.loads(json.dumps(row)).items()):
            raise Conflict(f"Another row of {table.name} stands where {row} should be.")

    def finish_rerun(self, study_id: int, number: int, values: Row) -> None:
        """Write the end of a rerun; done again, it changes nothing. Raises Conflict where it has ended otherwise."""
        column = tables.reruns.c
        mine = (column.study_id == study_id) & (column.number == number) & (column.state == "RUNNING")
        with self.engine.begin() as connection:
            changed = connection.execute(update(tables.reruns).where(mine).values(**values)).rowcount
        if not changed:
            self._compare(tables.reruns, {"study_id": study_id, "number": number, **values})

    def note_saved(self, study_id: int, kind: str, number: int, attempt: int, saved: str) -> None:
        """Write which checkpoint an attempt wrote last between two reports."""
        column = tables.attempts.c
        mine = (column.study_id == study_id) & (column.kind == kind) & (column.number == number)
        with self.engine.begin() as connection:
            connection.execute(update(tables.attempts).where(mine & (column.attempt == attempt)).values(saved=saved))

    def rows(self, table: Table, study_id: int) -> list[Row]:
        """All rows of a study in the order of the table's key."""
        return self._rows(table, study_id)

    def add_event(self, study_id: int, kind: str, text: str, trial: int | None = None) -> None:
        """Write an event in words, after all that stand there. For who is no ledger, which counts them itself."""
        event = tables.events
        with self.engine.begin() as connection:
            newest = select(func.coalesce(func.max(event.c.id), 0)).where(event.c.study_id == study_id)
            number = int(connection.execute(newest).scalar_one()) + 1
            row = {"study_id": study_id, "id": number, "at": now(), "kind": kind, "trial": trial}
            told = text.replace("\0", " ")  # PostgreSQL refuses it
            connection.execute(insert(event).values(**row, text=told))

    # -- how ---------------------------------------------------------------------------------------------------------

    def _insert(self, table: Table, *rows: Row) -> None:
        with self.engine.begin() as connection:
            connection.execute(insert(table), list(rows))

    def _rows(self, table: Table, study_id: int) -> list[Row]:
        key: Sequence[ColumnElement[Any]] = list(table.primary_key.columns)
        with self.engine.connect() as connection:
            asked = select(table).where(table.c.study_id == study_id).order_by(*key)
            return [dict(each._mapping) for each in connection.execute(asked)]
