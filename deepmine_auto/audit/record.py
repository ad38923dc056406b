"""A study's rows at one moment: what is verified, what is exported, and what is replayed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from optuna.trial import FrozenTrial
from sqlalchemy import Table

from deepmine_auto.errors import StudyHeld
from deepmine_auto.storage import tables
from deepmine_auto.storage.store import Row, Store, StudyRow
from deepmine_auto.study.history import History
from deepmine_auto.study.spaces import Spaces

KEPT = (
    tables.reports, tables.verdicts, tables.attempts, tables.reruns, tables.sessions, tables.events, tables.plugins,
    tables.datasets, tables.spaces, tables.evidence,
)  # fmt: skip

MOST_READINGS = 20


@dataclass(frozen=True)
class Record:
    """The rows of one study. It is read as a `Store` is, so that whatever reads rows reads it too."""

    study: StudyRow
    trials_by_number: tuple[FrozenTrial, ...]
    rows_by_table: Mapping[str, list[Row]]

    def trials(self, study_id: int) -> list[FrozenTrial]:
        """All trials by number."""
        return list(self.trials_by_number)

    def rows(self, table: Table, study_id: int = 0) -> list[Row]:
        """All rows of a table in the order of its key."""
        return self.rows_by_table[table.name]

    @property
    def spaces(self) -> Spaces:
        """The spaces that trials were drawn from."""
        return Spaces(self.study.spec, self.rows(tables.spaces))

    @property
    def history(self) -> History:
        """What the rows say."""
        return History(self, self.study)


def read(store: Store, name: str) -> Record:
    """Read a study, whole and of one moment, even while it is worked on. Raises StudyHeld where that never succeeds."""
    rows = _ours(store, name)
    for _ in range(MOST_READINGS):
        study = store.study(name)
        trials, again = tuple(store.trials(study.id)), _ours(store, name)
        if again == rows:  # a step of the ledger begins and ends with a row of ours, and Optuna's stand in between
            return Record(study, trials, rows)
        rows = again
    raise StudyHeld(f"The study '{name}' changes faster than it can be read.", "Try again when it has ended.")


def _ours(store: Store, name: str) -> dict[str, list[Row]]:
    study_id = store.study(name).id
    return {each.name: store.rows(each, study_id) for each in KEPT}
