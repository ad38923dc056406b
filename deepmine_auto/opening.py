"""A study made ready to be worked on: held, and begun or gone on with, perhaps with another budget or search space."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from deepmine_auto.changing import Change, respaced
from deepmine_auto.data import kept
from deepmine_auto.errors import BadInput, DeepmineError
from deepmine_auto.host import Host
from deepmine_auto.objectives import Objective
from deepmine_auto.planning.plan import Plan
from deepmine_auto.pretrained.choosing import contents_of
from deepmine_auto.space import Space
from deepmine_auto.storage import tables
from deepmine_auto.storage.engine import Fence
from deepmine_auto.storage.place import Place
from deepmine_auto.storage.store import Store, StudyRow
from deepmine_auto.study.budget import Budget, used
from deepmine_auto.study.provenance import check, checked_originals
from deepmine_auto.study.spaces import Spaces, changes


@dataclass(frozen=True)
class Opened:
    """A study that this process may write: its row, its database and the fence around that, and what to tell."""

    study: StudyRow
    storage: Place
    store: Store
    fence: Fence
    notes: tuple[str, ...] = ()

    @property
    def budget(self) -> Budget:
        """What the study may use."""
        return Budget(**self.study.spec["budget"])


# -- begin -----------------------------------------------------------------------------------------------------------


def begin(planned: Plan, store: Store) -> tuple[StudyRow, tuple[str, ...]]:
    """Write a planned study: its folder with the rows of all splits, and its row; return it with what to tell. Raises
    BadInput where another study has begun in that folder."""
    originals = contents_of(Space.from_json(planned.spec["space"]))
    _claim(planned.folder)
    _keep(planned)
    spec = {**planned.spec, "kept": kept.digest(planned.folder), "originals": originals}
    objectives = [Objective(*each) for each in zip(spec["objectives"], spec["directions"], strict=True)]
    dataset = {"fingerprint": spec["fingerprint"], "rows": len(planned.rows), "described": spec["described"]}
    beside = {tables.datasets: [dataset], tables.evidence: [dict(row) for row in planned.evidence]}
    study = store.create_study(planned.name, objectives, str(planned.folder), spec, beside)
    for note in planned.notes:
        store.add_event(study.id, "note", note)
    return study, planned.notes


def _keep(planned: Plan) -> None:
    try:
        kept.keep(planned.folder, planned.rows, planned.splits, planned.extra)
    except OSError as error:
        for each in planned.folder.iterdir():  # it was empty, and the next try needs its name
            each.unlink()
        what = f"The rows cannot be kept in {planned.folder}: {error.strerror}."
        raise DeepmineError(what, "Make room, or give another --output.") from error


def _claim(folder: Path) -> None:
    """Make a study's folder, or take an empty one, as the only one who does: studies of one name may begin at once in
    databases that stand beside each other. Raises BadInput."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        (folder / kept.OPEN).touch(exist_ok=False)
    except FileExistsError as error:
        what = f"The output folder {folder} is another study's."
        raise BadInput(what, "Give another --output or --study.") from error


# -- go on -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Onward:
    """How a study goes on, of which nothing is written yet: its row as it will be, its search space and that one's
    name, what the change says in words, and what else to tell."""

    study: StudyRow
    name: str
    space: Space
    told: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ended(self) -> bool:
        """Whether there is nothing to do."""
        return self.study.result is not None


def onward(study: StudyRow, store: Store, change: Change, host: Host) -> Onward:
    """Say how a study goes on with a change.

    Raises BadInput where a plugin that it needs is gone, where its rows are other ones, or where the change would
    change nothing.
    """
    budget, before = change.budget, Spaces.of(store, study)
    _refuse_futile(study, store, change, budget)
    name, space, notes = respaced(study, before, change, host)
    check(store, study, space, host)
    originals = checked_originals(study, space)
    spec = {**study.spec, "workers": change.on(study.spec["workers"]), "originals": originals}
    row = replace(study, spec=spec)
    return Onward(_reopened(row, store, budget), name, space, tuple(changes(before.now, space)), notes)


def go_on(study: StudyRow, store: Store, onward: Onward) -> StudyRow:
    """Write how a study goes on, and return its row."""
    if onward.told:
        store.set_space(study.id, len(store.trials(study.id)), onward.name, onward.space.to_json())
        for each in onward.told:
            store.add_event(study.id, "space", each)
    if onward.study != study:
        store.reopen(study.id, onward.study.spec)
    return store.study(study.name)


def _refuse_futile(study: StudyRow, store: Store, change: Change, budget: Budget) -> None:
    if change.another_space and not budget.set and (why := _draws_no_more(study, store)):
        remedy = "Give --trials or --time-budget too, and it is searched further."
        raise BadInput(f"The study '{study.name}' {why}.", remedy)
    if study.result is None:
        return
    for option, more, there, what in _used(study, store, budget):
        if more is not None and more <= there:
            raise BadInput(f"The study '{study.name}' is finished and {what}.", f"Give {option} above {there:.10g}.")


def _draws_no_more(study: StudyRow, store: Store) -> str:
    """Why no trial would be drawn from another space, in words; empty where some would."""
    if study.result is not None:
        return "is finished"
    reruns, trials = len(store.rows(tables.reruns, study.id)), len(store.trials(study.id))
    if reruns > study.spec.get("reopened", 0):
        return "is in its finals"
    budget = Budget(**study.spec["budget"])
    if budget.trials is not None and trials >= budget.trials:
        return f"has all its {budget.trials} trials"
    used_up = (said for _, most, there, said in _used(study, store, budget) if most is not None and most <= there)
    return next(used_up, "")


def _used(study: StudyRow, store: Store, budget: Budget) -> list[tuple[str, float | None, float, str]]:
    """Each limit: its option, what it is to be, what a study has used of it, and that in words."""
    trials, (seconds, gpu_hours) = len(store.trials(study.id)), used(store.sessions(study.id))
    return [
        ("--trials", budget.trials, trials, f"has {trials} trials"),
        ("--time-budget", budget.seconds, math.ceil(seconds), f"has taken {seconds:.0f} seconds"),
        ("--max-gpu-hours", budget.gpu_hours, gpu_hours, f"has held GPUs for {gpu_hours:.3g} hours"),
    ]


def _reopened(study: StudyRow, store: Store, budget: Budget) -> StudyRow:
    """The row with another budget. What was found counts no more; finals are held again, and reruns of whoever is a
    finalist again still count. A search that had ended before goes on."""
    if not budget.set:
        return study
    reopened = {
        "budget": asdict(budget),
        "reopened": len(store.rows(tables.reruns, study.id)),
        "reopened_after": max((row["id"] for row in store.rows(tables.events, study.id)), default=0),
    }
    return replace(study, spec={**study.spec, **reopened}, result=None)
