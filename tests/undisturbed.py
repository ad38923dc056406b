"""What a disturbed study must agree in with one that was not, and what holds of every study."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from fakes import told

from deepmine_auto.storage import tables
from deepmine_auto.storage.store import Store, StudyRow
from deepmine_auto.study.outbox import left_in


def found(store: Store, study: StudyRow) -> tuple[Any, ...]:
    """All that a resume must not change: trials, finals, verdicts, and the curves by step."""
    reruns = [{**row, "study_id": None} for row in store.rows(tables.reruns, study.id)]
    verdicts = {(row["number"], row["rung"]): row["keep"] for row in store.rows(tables.verdicts, study.id)}
    curves = {(r["kind"], r["number"], r["step"]): r["value"] for r in store.rows(tables.reports, study.id)}
    return plain(told(store.trials(study.id))), plain(reruns), verdicts, curves


def plain(rows: list[Any]) -> list[Any]:
    """Rows without the paths, which name attempts."""

    def without(row: Any) -> Any:
        return {key: value for key, value in row.items() if key != "checkpoint"}

    return [without({**row, "attrs": without(row.get("attrs", {}))}) for row in rows]


def every_row(store: Store, study: StudyRow) -> dict[str, Any]:
    """All rows, but those that say when and what happened to a driver."""
    ours = (tables.reports, tables.verdicts, tables.attempts, tables.reruns)
    found: dict[str, Any] = {each.name: [{**row, "study_id": 0} for row in store.rows(each, study.id)] for each in ours}
    system = [each.system_attrs for each in store.trials(study.id)]
    return found | {"trials": told(store.trials(study.id)), "system": system, "result": store.study(study.name).result}


def assert_whole(store: Store, study: StudyRow, trials: int) -> None:
    """What is promised of an ended study, however often its drivers were killed."""
    rows = store.trials(study.id)
    assert [each.number for each in rows] == list(range(trials)), "exactly so many trials, none twice"
    assert all(each.state.is_finished() for each in rows), "nothing is RUNNING without a driver"
    assert all(each.user_attrs["cause"] for each in rows), "every end has a reason"
    assert {row["state"] for row in store.rows(tables.reruns, study.id)} <= {"COMPLETE", "FAIL"}
    seqs = [row["seq"] for row in store.rows(tables.reports, study.id)]
    assert seqs == list(range(1, len(seqs) + 1)), "reports have one dense order"
    attempts = Counter((row["kind"], row["number"]) for row in store.rows(tables.attempts, study.id))
    assert all(
        sorted(row["attempt"] for row in store.rows(tables.attempts, study.id) if (row["kind"], row["number"]) == key)
        == list(range(1, count + 1))
        for key, count in attempts.items()
    )
    assert not left_in(Path(study.folder)), "nothing waits to be written"
