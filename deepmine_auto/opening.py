"""A study made ready to be worked on: held, and begun or gone on with, perhaps with another budget or search space."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

from deepmine_auto.changing import Change, respaced
from deepmine_auto.data import kept
from deepmine_auto.errors import BadInput
from deepmine_auto.host import Host
from deepmine_auto.objectives import Objective
from deepmine_auto.planning import Plan
from deepmine_auto.pretrained.choosing import contents_of
from deepmine_auto.space import Space
from deepmine_auto.storage import tables
from deepmine_auto.storage.engine import Fence
from deepmine_auto.storage.place import Place, write
from deepmine_auto.storage.store import Store, StudyRow
from deepmine_auto.study.budget import Budget
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


@contextmanager
def held(place: Place, study: str, *, take_over: bool = False) -> Iterator[tuple[Store, Fence]]:
    """Open a database whose study this process alone may write. Raises StudyHeld, DatabaseAway, BadInput."""
    fence = Fence()
    with place.hold(study, take_over=take_over) as hold:
        store = write(place, fence)  # a driver that was stopped while it wrote keeps others from opening
        fence.hold = hold
        yield store, fence


# -- begin -----------------------------------------------------------------------------------------------------------


def begin(planned: Plan, store: Store) -> tuple[StudyRow, tuple[str, ...]]:
    """Write a planned study: its folder with the rows of all splits, and its row; return it with what to tell."""
    originals = contents_of(Space.from_json(planned.spec["space"]))
    planned.folder.mkdir(parents=True, exist_ok=True)
    kept.keep(planned.folder, planned.rows, planned.splits, planned.extra)
    spec = {**planned.spec, "kept": kept.digest(planned.folder), "originals": originals}
    objectives = [Objective(*each) for each in zip(spec["objectives"], spec["directions"], strict=True)]
    study = store.create_study(planned.name, objectives, str(planned.folder), spec)
    dataset = {"fingerprint": spec["fingerprint"], "rows": len(planned.rows), "described": spec["described"]}
    store.add(tables.datasets, study.id, dataset)
    for row in planned.evidence:
        store.add(tables.evidence, study.id, dict(row))
    for note in planned.notes:
        store.add_event(study.id, "note", note)
    return study, planned.notes


# -- go on -----------------------------------------------------------------------------------------------------------


def go_on(study: StudyRow, store: Store, change: Change, host: Host) -> tuple[StudyRow, tuple[str, ...]]:
    """Change what is to be changed, and return the study with what to tell.

    Raises BadInput where a plugin that it needs is gone, where its rows are other ones, or where the change would
    change nothing.
    """
    budget, before = change.budget, Spaces.of(store, study)
    _refuse_futile(study, store, change, budget)
    name, space, notes = respaced(study, before, change, host)
    check(store, study, space, host)
    originals = checked_originals(study, space)
    told = changes(before.now, space)
    if told:
        store.set_space(study.id, len(store.trials(study.id)), name, space.to_json())
        for each in told:
            store.add_event(study.id, "space", each)
    now = {"workers": change.on(study.spec["workers"]), "originals": originals}
    if now != {name: study.spec.get(name) for name in now}:
        study = replace(study, spec={**study.spec, **now})
        store.set_spec(study.id, study.spec)
    if budget.set:
        _reopen(study, store, budget)
    return store.study(study.name), (*notes, *told)


def _refuse_futile(study: StudyRow, store: Store, change: Change, budget: Budget) -> None:
    if study.result is None:
        return
    there = len(store.trials(study.id))
    if budget.trials is not None and budget.trials <= there:
        raise BadInput(f"The study '{study.name}' is finished and has {there} trials.", f"Give --trials above {there}.")
    if change.another_space and not budget.set:
        what = f"The study '{study.name}' is finished."
        raise BadInput(what, "Give --trials or --time-budget too, and it is searched further.")


def _reopen(study: StudyRow, store: Store, budget: Budget) -> None:
    """What was found counts no more; finals are held again, and reruns of whoever is a finalist again still count."""
    reopened = len(store.rows(tables.reruns, study.id))
    store.reopen(study.id, {**study.spec, "budget": asdict(budget), "reopened": reopened})
