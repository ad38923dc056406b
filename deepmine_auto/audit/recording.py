"""A study as one JSON file: written by `studies export`, read by `studies replay` on any machine."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import Table

from deepmine_auto.audit.record import KEPT, Record, read
from deepmine_auto.disk import flush
from deepmine_auto.errors import BadInput
from deepmine_auto.storage import tables
from deepmine_auto.storage.store import Row, Store, StudyRow

FORMAT = 1

PRIVATE = ("study_id", "host", "pid")
"""Columns that say where a study was worked on, and nothing about it."""

LOCAL = ("workers", "originals")
"""What a specification says of this machine: what trials ran on, and what the folders of pretrained models held."""

PATH = re.compile(r"(?<![\w:/.])/(?:[^/\s'\"]+/)+")
"""The folders of an absolute path; addresses and the names of params are none."""

SEAL = "seal"
"""The key of the sha256 of all the others: a damaged file would be replayed as another study."""

AGAIN = "Make one: deepmine-auto studies export STUDY --output FILE"


def write(store: Store, study: str, output: str) -> Path:
    """Export a study to a new file, which gets its name when it is whole. Raises BadInput where that cannot be."""
    file = Path(output).expanduser().absolute()
    if file.exists():
        raise BadInput(f"{file} exists.", "Name another --output.")
    plain = to_json(read(store, study))
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        unfinished.write_text(_rendered({**plain, SEAL: _seal(plain)}), encoding="utf-8")
        flush(unfinished)
        unfinished.rename(file)
        flush(file.parent)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise BadInput(f"{file} cannot be written: {error.strerror}.", "Check path and rights.") from error
    return file


def _seal(plain: Row) -> str:
    return hashlib.sha256(_rendered(plain).encode()).hexdigest()


def _rendered(plain: Row) -> str:
    return json.dumps(plain, ensure_ascii=False, allow_nan=False, indent=1, sort_keys=True) + "\n"


def read_file(name: str) -> Record:
    """Read an exported study. Raises BadInput where it is none, or is not as it was written."""
    try:
        plain = json.loads(Path(name).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{name} cannot be read as JSON: {str(error).splitlines()[0]}.", AGAIN) from error
    if not isinstance(plain, dict) or "format" not in plain:
        raise BadInput(f"{name} is no exported study.", AGAIN)
    if plain["format"] != FORMAT:
        told = f"{name} was exported in format {plain['format']}, and this version reads {FORMAT}."
        raise BadInput(told, "Upgrade deepmine-auto, or export the study again.")
    if plain.pop(SEAL, None) != _seal(plain):
        raise BadInput(f"{name} was changed after the study was exported.", AGAIN)
    return from_json(plain)


# -- plain values ----------------------------------------------------------------------------------------------------


def to_json(record: Record) -> Row:
    """Return plain values: no password is among them, no path, and no name of a machine."""
    study = record.study
    whole = {
        "format": FORMAT,
        "study": study.name,
        "directions": [each.name.lower() for each in study.directions],
        "spec": {name: value for name, value in study.spec.items() if name not in LOCAL},
        "result": study.result and {name: value for name, value in study.result.items() if name != "bundle"},
        "trials": [_trial_to_json(each) for each in record.trials_by_number],
        **{_short(each): [_public(row) for row in record.rows(each)] for each in KEPT},
    }
    return _portable(whole, study.folder)  # type: ignore[no-any-return]


def _short(table: Table) -> str:
    return table.name.removeprefix(tables.PREFIX)


def _public(row: Row) -> Row:
    """A row, or attributes, for anybody to see: above a reason's last line stands a traceback, which shows files."""
    public = {name: value for name, value in row.items() if name not in PRIVATE}
    return public | ({"reason": public["reason"].strip().rpartition("\n")[2]} if public.get("reason") else {})


def _trial_to_json(trial: FrozenTrial) -> Row:
    return {
        "number": trial.number,
        "state": trial.state.name,
        "values": trial.values,
        "params": trial.params,
        "distributions": {name: distribution_to_json(each) for name, each in trial.distributions.items()},
        "curve": {str(step): value for step, value in trial.intermediate_values.items()},
        "attributes": _public(trial.user_attrs),
        "system": trial.system_attrs,
    }


def _portable(value: Any, folder: str) -> Any:
    """Plain values without the folders of this machine, and without numbers that JSON does not have."""
    if isinstance(value, str):
        return PATH.sub("", value.replace(folder, ".") if folder else value)
    if isinstance(value, Mapping):
        return {name: _portable(each, folder) for name, each in value.items()}
    if isinstance(value, Iterable):
        return [_portable(each, folder) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_json(plain: Row) -> Record:
    """Read what `to_json` wrote."""
    directions = tuple(StudyDirection[each.upper()] for each in plain["directions"])
    study = StudyRow(0, plain["study"], directions, "", plain["spec"], plain["result"])
    trials = tuple(_trial_from_json(each) for each in plain["trials"])
    return Record(study, trials, {each.name: _rows_from_json(each, plain[_short(each)]) for each in KEPT})


def _rows_from_json(table: Table, rows: list[Row]) -> list[Row]:
    names = [each.name for each in table.columns if each.name not in PRIVATE]
    return [{name: row[name] for name in names} | dict.fromkeys(PRIVATE) for row in rows]


def _trial_from_json(plain: Row) -> FrozenTrial:
    trial = create_trial(
        state=TrialState[plain["state"]],
        values=plain["values"],
        params=plain["params"],
        distributions={name: json_to_distribution(each) for name, each in plain["distributions"].items()},
        user_attrs=plain["attributes"],
        system_attrs=plain["system"],
        intermediate_values={int(step): value for step, value in plain["curve"].items()},
    )
    trial.number = plain["number"]
    return trial
