"""An ensemble of a study's trials: chosen on validation rows, exported, and then judged on the locked test beside the
winner, with which it must be compared, because it costs a multiple.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from deepmine_auto.bundle.load import load
from deepmine_auto.bundle.save import named_when_whole, refuse_existing, refuse_unmakeable
from deepmine_auto.concluding import milliseconds, outputs_for
from deepmine_auto.data.kept import SEARCH, rows_of, test_rows
from deepmine_auto.data.rows import Rows
from deepmine_auto.ensemble.candidates import Pool, pool_of
from deepmine_auto.ensemble.load import Ensemble, member_folder, write
from deepmine_auto.ensemble.selecting import PICKS, Selection, refuse_few, select
from deepmine_auto.errors import BadInput
from deepmine_auto.exporting import export_again, study_in, training_of, winner_of
from deepmine_auto.host import the_host
from deepmine_auto.storage import tables
from deepmine_auto.storage.place import Place, held
from deepmine_auto.storage.store import Row, Store, StudyRow
from deepmine_auto.study.evidence import Evidence, weigh
from deepmine_auto.study.seeding import seed_of
from deepmine_auto.study.writer import replay_left
from deepmine_auto.training.loop import Training
from deepmine_auto.training.measure import params_million


def form(study: str, storage: Place, members: int = PICKS, output: Path | None = None) -> Row:
    """Choose, export and judge an ensemble of at most `members` picks; return its folder and what it says of itself.

    Raises BadInput where there is no such study, end or second trial, or where `output` exists, and NoBetter where one
    trial alone is as good on the validation rows: then the test stays locked. Raises StudyHeld, DatabaseAway.
    """
    refuse_few(members)
    store, row = study_in(storage, study)
    winner_of(row, store)
    folder = output or Path(row.folder) / "ensemble"
    refuse_existing(folder)
    refuse_unmakeable(folder)
    with held(storage, study) as (store, fence):
        replay_left(store, row)
        pool = pool_of(row, store, the_host())
        found = select(pool, row, members)
        winner = training_of(row, store, winner_of(row, store), the_host())
        _refuse_other_classes(pool, row, winner)
        with named_when_whole(folder) as unfinished:
            for trial in found.shares:
                export_again(study, storage, trial, unfinished / member_folder(trial))
            fence.regain()  # all that may have taken long
            told = _judged(_ensemble(unfinished, found), found, winner, row, store)
            write(unfinished, found.shares, told)
    return {"folder": str(folder), "shares": found.shares, **told}


def _ensemble(folder: Path, found: Selection) -> Ensemble:
    members = tuple(load(folder / member_folder(trial)) for trial in found.shares)
    return Ensemble(folder, {}, members, tuple(found.shares.values()))


def _refuse_other_classes(pool: Pool, row: StudyRow, winner: Training) -> None:
    """What the winner's rerun was fitted on is another split, which may lack a class, or an answer, that is rare."""
    targets = winner.prepared.targets(rows_of(Path(row.folder), SEARCH, "validation"))
    classes = pool.candidates[0].outputs.shape[-1]
    if winner.prepared.outputs != classes or not np.array_equal(targets, pool.targets):
        what = "The winner was trained again on rows with other classes, so that no ensemble can be compared with it."
        raise BadInput(what, "Give rows in which no class is rare.")


# -- the locked test -------------------------------------------------------------------------------------------------


def _judged(ensemble: Ensemble, found: Selection, winner: Training, row: StudyRow, store: Store) -> Row:
    """Open the test for what was exported, and for the winner once more; return all that there is to tell."""
    store.add_event(row.id, "test opened", f"the locked test was opened for an ensemble of trials {found.words()}")
    rows = test_rows(Path(row.folder))
    evidence = _evidence(ensemble, winner, row, rows)
    events = store.rows(tables.events, row.id)
    return {
        "study": row.name,
        "task": row.spec["task"],
        "fingerprint": row.spec["fingerprint"],
        "winner": winner.assignment.number,
        "sentence": evidence.sentence(),
        "evidence": evidence.to_json(),
        "validation": found.to_json(),
        "cost": _cost(ensemble, winner, rows),
        "limits": [str(each) for each in row.limits],
        "test_opened": sum(each["kind"] == "test opened" for each in events),
    }


def _evidence(ensemble: Ensemble, winner: Training, row: StudyRow, rows: Rows) -> Evidence:
    """The ensemble's scores with the winner's beside them, in the place where a trial's evidence has the baseline's."""
    outputs, beside = ensemble.outputs(rows.inputs), outputs_for(winner, rows.inputs)
    targets, seed = ensemble.prepared.targets(rows), seed_of(int(row.spec["seed"]), "bootstrap")
    evidence = weigh(ensemble.task, row.spec["objective"], outputs, beside, targets, seed)
    return replace(evidence, baseline_name=f"the winner, trial {winner.assignment.number}")


def _cost(ensemble: Ensemble, winner: Training, rows: Rows) -> Mapping[str, Any]:
    """Parameters and time of one text by itself, the winner's beside them, and how many times as much that is."""
    size, beside = sum(params_million(each.model) for each in ensemble.members), params_million(winner.model)
    took = milliseconds(ensemble.outputs, ensemble.prepared, rows.inputs)
    took_beside = milliseconds(partial(outputs_for, winner), winner.prepared, rows.inputs)
    return {
        "params_million": {"ensemble": round(size, 4), "winner": beside, "times": round(size / beside, 2)},
        "ms_per_text": {
            "ensemble": round(took, 2),
            "winner": round(took_beside, 2),
            "times": round(took / took_beside, 2),
        },
    }
