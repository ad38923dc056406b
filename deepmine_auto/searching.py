"""The use case: task, data and budget become a study, its winner, and a bundle that has been checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from deepmine_auto.bundle.save import refuse_existing
from deepmine_auto.changing import Change
from deepmine_auto.concluding import conclude
from deepmine_auto.errors import BadInput, unknown
from deepmine_auto.executors import inline
from deepmine_auto.executors.gpus import seeing
from deepmine_auto.host import Host, the_host
from deepmine_auto.opening import Opened, begin, go_on, onward
from deepmine_auto.planning.plan import plan, refuse_known
from deepmine_auto.planning.request import Request
from deepmine_auto.refitting.in_time import refit_in_time, refit_seconds
from deepmine_auto.storage.place import Place, held, place_of
from deepmine_auto.storage.store import Row, StudyRow
from deepmine_auto.study.agenda import Agenda
from deepmine_auto.study.baseline import Baseline, beside
from deepmine_auto.study.budget import Budget
from deepmine_auto.study.closing import closing_seconds
from deepmine_auto.study.ledger import Ledger
from deepmine_auto.study.notes import study_note
from deepmine_auto.study.provenance import record_plugins, unavailable
from deepmine_auto.study.showing import note_study
from deepmine_auto.study.writer import replay_left
from deepmine_auto.watcher import Watcher


@dataclass(frozen=True)
class Result:
    """What a study found: its name, the winning trial, the sentence, the bundle's folder, and all else in `found`;
    `refit` is what `refitting.all_rows.refit` returns, where a refit was asked for and came to its end."""

    study: str
    storage: Place
    trial: int
    sentence: str
    bundle: Path
    found: Mapping[str, Any]
    refit: Row | None = None


def search(watcher: Watcher | None = None, **fields: Any) -> Result:
    """Search, name a winner, and export it. The fields are those of `planning.request.Request`: task, data, trials, ...

    Raises DeepmineError with one sentence for whatever the user can mend.
    """
    watcher, host = watcher or Watcher(), the_host()
    request = Request(**fields)
    with seeing(request.gpus):
        planned = plan(request, host, begins=True)
    with workers(planned.spec["workers"]) as on:
        planned.budget.refuse_endless(on.gpus)
        refuse_known(planned.storage, planned.name)  # others may have taken name and folder meanwhile
        refuse_existing(planned.folder)
        _prove(planned.folder, on)
        with held(planned.storage, planned.name) as (store, fence):
            study, notes = begin(planned, store)
            return _conduct(Opened(study, planned.storage, store, fence, notes), on, watcher, host)


def resume(
    study: str,
    storage: str | Place | None = None,
    watcher: Watcher | None = None,
    *,
    take_over: bool = False,
    **fields: Any,
) -> Result:
    """Go on with a study where it stood: the same trials, from their checkpoints. Raises BadInput, StudyHeld.

    The fields are those of `changing.Change`. With a new budget it is searched further, and the finals are held again;
    a finished study without one is returned as it is. `take_over` ends the process that holds the study.
    """
    watcher, host, change = watcher or Watcher(), the_host(), Change(**fields)
    place = place_of(storage)
    if study not in place.names():
        raise unknown(study, place.names(), f"study in {place}")
    with held(place, study, take_over=take_over) as (store, fence):
        replayed = replay_left(store, store.study(study))  # a result may wait: the test is not opened for it again
        before = store.study(study)
        with seeing(change.on(before.spec["workers"])["gpus"]):
            further = onward(before, store, change, host)
        if further.ended:
            return _result(before, place)
        with workers(further.study.spec["workers"]) as on:
            Budget(**further.study.spec["budget"]).refuse_endless(on.gpus)
            row = go_on(before, store, further)  # now: a study that cannot go on keeps what it found
            opened = Opened(row, place, store, fence, (*replayed, *further.notes, *further.told))
            return _conduct(opened, on, watcher, host)


# -- the road --------------------------------------------------------------------------------------------------------

Run = Callable[[Agenda, Host, Callable[[], None]], None]


class Workers(NamedTuple):
    """What trials run on: how an agenda is run on it, the number of trials at a time, the GPUs that they hold, and what
    raises BadInput where a folder is not seen by all of it."""

    run: Run
    slots: int
    gpus: float
    prove: Callable[[Path], None]


def _prove(folder: Path, on: Workers) -> None:
    """Raise BadInput where the study's folder is not seen by all workers, before anything is written: a study that has
    begun keeps its folder. Nothing of it is left, because the study may not begin for another reason."""
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # nobody may write there after all, as in /proc
        what = f"The output folder {folder} cannot be made: {error.strerror}."
        raise BadInput(what, "Give another --output.") from error
    try:
        on.prove(folder)
    finally:
        if made:
            with suppress(OSError):
                folder.rmdir()


def _conduct(opened: Opened, on: Workers, watcher: Watcher, host: Host) -> Result:
    study = opened.study
    plugins = host.get("sampler", study.spec["sampler"])(), host.get("pruner", study.spec["pruner"])()
    ledger = Ledger(opened.store, study, opened.fence, plugins, watcher.happened, opened.fence.regain, on.gpus)
    record_plugins(ledger, host)
    note_study(opened.store, study, study_note(study))
    baseline, refits = beside(study, host), study.spec.get("refit", False)
    agenda = Agenda(
        ledger,
        opened.budget,
        on.slots,
        lambda: closing_seconds(baseline.seconds(), agenda.took, study.spec["parts"]),
        lambda params: unavailable(study, params, host),
        (lambda: refit_seconds(agenda)) if refits else None,
    )
    watcher.opened(agenda, opened.notes, baseline.value)
    with _noted(ledger):
        on.run(agenda, host, partial(_tick, baseline, watcher))
        watcher.concluding()
        found = conclude(agenda, host, _bundle_folder(study))
    ledger.writer.settle()
    ended = replace(study, result=found)
    again = refit_in_time(replace(opened, study=ended), agenda, watcher, on.gpus) if refits else None
    return replace(_result(ended, opened.storage), refit=again)


@contextmanager
def _noted(ledger: Ledger) -> Iterator[None]:
    """Write how long this session has lasted where it ends without a result, as far as that is possible at once: a
    budget holds over all sessions."""
    try:
        yield
    except BaseException:
        with suppress(Exception):
            ledger.note_end()
        raise


def _tick(baseline: Baseline, watcher: Watcher) -> None:
    baseline.begin()
    watcher.tick()


def _result(study: StudyRow, storage: Place) -> Result:
    found = study.result
    assert found is not None
    return Result(study.name, storage, found["winner"], found["sentence"], Path(found["bundle"]), found)


def _bundle_folder(study: StudyRow) -> Path:
    """The bundle's place in the study's folder; a later one, after more trials, has a number."""
    folder = Path(study.folder)
    numbered = (folder / f"bundle-{number}" for number in range(2, 10_000))
    return next(each for each in (folder / "bundle", *numbered) if not each.exists())


# -- where trials run ------------------------------------------------------------------------------------------------


@contextmanager
def workers(asked: Mapping[str, Any]) -> Iterator[Workers]:
    """Open what trials run on: this process, or Ray. Meanwhile no GPU is seen where 0 were asked for."""
    here = Workers(inline.run, 1, 0.0, lambda _: None)
    opened = nullcontext(here) if asked["executor"] == "inline" else _on_ray(asked)
    with seeing(asked["gpus"]), opened as on:
        yield on


@contextmanager
def _on_ray(asked: Mapping[str, Any]) -> Iterator[Workers]:
    from deepmine_auto.executors import ray

    with ray.started(asked["address"], asked["gpus"], asked.get("insecure_cluster", False)):
        found = ray.resources_of(asked["gpus"], asked["gpus_per_trial"], asked["workers"])
        resources = replace(found, pinned=asked.get("pin_workers", False))

        def run(agenda: Agenda, _host: Host, tick: Callable[[], None]) -> None:
            ray.run(agenda, resources, tick)

        yield Workers(run, resources.slots, resources.slots * resources.gpus_per_trial, ray.refuse_unseen)
