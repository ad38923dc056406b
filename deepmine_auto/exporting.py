"""Export again what a study has found: its winner, or another trial's best checkpoint. The locked test stays closed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from deepmine_auto.bundle.card import UNOPENED
from deepmine_auto.bundle.save import refuse_existing
from deepmine_auto.concluding import Chosen, export, restored, story_of
from deepmine_auto.data.kept import rows_of
from deepmine_auto.errors import BadInput, unknown
from deepmine_auto.host import Host, the_host
from deepmine_auto.storage import tables
from deepmine_auto.storage.place import Place, read
from deepmine_auto.storage.store import Store, StudyRow
from deepmine_auto.study.checkpoints import Standing
from deepmine_auto.study.provenance import unavailable
from deepmine_auto.study.seeding import of_rerun, of_trial
from deepmine_auto.study.spaces import Spaces
from deepmine_auto.training.checkpoint import Damaged, check
from deepmine_auto.training.loop import Training


def export_again(study: str, storage: Place, trial: int | None = None, output: Path | None = None) -> Path:
    """Write a bundle of the winner, or of the best checkpoint of `trial`, and return its folder.

    Raises BadInput where there is no such study, result, trial or checkpoint, or where `output` exists, and NotEqual if
    the reloaded model differs.
    """
    store, row = study_in(storage, study)
    chosen = winner_of(row, store) if trial is None else _best_of(trial, row, store)
    folder = output or Path(row.folder) / (f"export-{chosen.trial}" if trial is None else f"export-trial-{trial}")
    refuse_existing(folder)
    _write(row, store, chosen, row.result if trial is None else None, folder)
    return folder


def study_in(storage: Place, study: str) -> tuple[Store, StudyRow]:
    """Open a study for reading. Raises BadInput where there is none of this name."""
    store = read(storage)
    if study not in store.names():
        raise unknown(study, store.names(), f"study in {storage}")
    return store, store.study(study)


def winner_of(row: StudyRow, store: Store) -> Chosen:
    """The weights that won. Raises BadInput where the study has not ended."""
    if row.result is None:
        raise BadInput(f"The study '{row.name}' has no winner yet.", f"Finish it: deepmine-auto resume {row.typed}")
    number = row.result["rerun"]
    if number is None:
        return _best_of(row.result["winner"], row, store)
    rerun = next(each for each in store.rows(tables.reruns, row.id) if each["number"] == number)
    return Chosen(rerun["trial"], *of_rerun(int(row.spec["seed"]), rerun["repeat"]), rerun["checkpoint"])


def _best_of(trial: int, row: StudyRow, store: Store) -> Chosen:
    count = len(store.trials(row.id))
    if not 0 <= trial < count:
        known = f"It has the trials 0 to {count - 1}." if count else "It has no trial yet."
        raise BadInput(f"The study '{row.name}' has no trial {trial}.", known)
    own = [each for each in store.rows(tables.reports, row.id) if (each["kind"], each["number"]) == ("trial", trial)]
    best = Standing(reports=own).best(row.spec["direction"])
    if best is None:
        raise BadInput(f"Trial {trial} ended before its first evaluation.", _kept(row, store))
    if not (Path(row.folder) / best["best_checkpoint"]).is_dir():
        raise BadInput(f"The weights of trial {trial} were not kept.", _kept(row, store))
    return Chosen(trial, *of_trial(int(row.spec["seed"]), trial), best["best_checkpoint"])


def _kept(row: StudyRow, store: Store) -> str:
    """Name the trials whose best checkpoint is on the disk."""
    reports = store.rows(tables.reports, row.id)
    numbers = sorted({each["number"] for each in reports if each["kind"] == "trial" and _has_best(row, each, reports)})
    return f"The best are kept: {', '.join(map(str, numbers))}." if numbers else "None of this study's are."


def _has_best(row: StudyRow, report: Mapping[str, Any], reports: list[dict[str, Any]]) -> bool:
    last = max(each["seq"] for each in reports if (each["kind"], each["number"]) == ("trial", report["number"]))
    return bool(report["seq"] == last) and (Path(row.folder) / report["best_checkpoint"]).is_dir()


def refuse_lost(row: StudyRow, chosen: Chosen) -> None:
    """Raise BadInput where a checkpoint is damaged: a training would begin anew, and untrained weights be exported."""
    try:
        check(Path(row.folder) / chosen.checkpoint)
    except Damaged as damaged:
        raise _lost(chosen, damaged) from damaged


def _lost(chosen: Chosen, damaged: Damaged) -> BadInput:
    return BadInput(f"The weights of trial {chosen.trial} are lost: {damaged.what}", "Export another trial.")


def training_of(row: StudyRow, store: Store, chosen: Chosen, host: Host) -> Training:
    """The training of chosen weights, restored. Raises BadInput where they are lost, or a plugin of theirs is gone."""
    trial: FrozenTrial = store.trials(row.id)[chosen.trial]
    params = Spaces.of(store, row).complete(trial.number, trial.params)
    missing = unavailable(row, params, host)
    if missing:
        raise BadInput(f"Trial {trial.number} cannot be exported: {missing}.", "Install it, or export another trial.")
    try:
        return restored(row, params, chosen, host)
    except Damaged as damaged:
        raise _lost(chosen, damaged) from damaged


def _write(row: StudyRow, store: Store, chosen: Chosen, result: Mapping[str, Any] | None, folder: Path) -> None:
    host = the_host()
    training = training_of(row, store, chosen, host)
    params = training.assignment.params
    rows = rows_of(Path(row.folder), chosen.split, "validation")
    if result is None:
        story = story_of(row, params, chosen, host, UNOPENED, None, training.facts())
    else:
        closed = story_of(row, params, chosen, host, result["sentence"], None, result["facts"])
        story = replace(closed, evidence=result["evidence"])
    export(folder, training, story, rows)
