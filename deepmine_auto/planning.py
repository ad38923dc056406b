"""From what a user asks for to a plan. Everything that can be refused is refused here, before anything is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from typing import Any

from deepmine_auto.admitting import Searched, space_over
from deepmine_auto.contracts import Task
from deepmine_auto.data.fingerprint import content, fingerprint
from deepmine_auto.data.kept import SEARCH
from deepmine_auto.data.read import NoSuchColumn, source_from
from deepmine_auto.data.rows import NOTHING_MORE, Extra, Rows, Source
from deepmine_auto.data.split import Split, fewer_judged, resplit, split, without_duplicates
from deepmine_auto.errors import BadInput, unknown
from deepmine_auto.executors.cores import can_keep
from deepmine_auto.fidelity import most_judged, most_read, reading, told
from deepmine_auto.host import Host
from deepmine_auto.objectives import limits_from, objectives_from
from deepmine_auto.pretrained.choosing import chosen_from, longest_reader
from deepmine_auto.pretrained.skeleton import Skeleton
from deepmine_auto.space_file.adding import reading_longest, with_learners
from deepmine_auto.space_file.asked_for import asked_for, listed, refuse_idle
from deepmine_auto.space_file.reading import SpaceFile, read_space, space_for
from deepmine_auto.storage.place import Place, flag_of, place_of, read
from deepmine_auto.storage.store import Row, Store
from deepmine_auto.study.budget import Budget, seconds_of
from deepmine_auto.study.cheap_first import first_draws
from deepmine_auto.study.finals import REPEATS
from deepmine_auto.study.seeding import rerun_split, seed_of
from deepmine_auto.study.warm import warm_start
from deepmine_auto.training.prepared import prepared_by

EXECUTORS = ("ray", "inline")
DEALT = 20
"""So often the rows are dealt anew for a rerun, until its training rows know all answers."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user may ask of a search; each field is an option of `deepmine-auto search`.

    data: files (`FILE`, or `train=FILE` and so on) or one folder; none is the task's own data. unlabelled: a file of
    texts without labels, which techniques such as `pseudo_labels` learn from. paraphrases: a table of texts of the
    data, each with a `paraphrase` beside it. attention, tuning: what to choose from instead of the space's variants
    and tunings. technique: techniques to search beside the space's. backbone: backbones by name, or pretrained models:
    folders, or names of the hub. time_budget: seconds, or text such as 5m.
    storage: a SQLite file or a PostgreSQL URL without password; none is that of the environment. output: the study's
    folder. gpus: in all; None is as many as there are. objective: one or several scores or costs; trials are pruned by
    the first. limit: bounds such as `latency_ms<=5`. warm_start: earlier studies of the task, by name in this storage,
    or as STORAGE:NAME. refit: train the winner once more in the end, on the validation rows too, if time is left for
    it. unchecked: trust attention variants of others without holding them to their promises.
    """

    task: str = "sentiment"
    data: Sequence[str] | str = ()
    text_column: str | None = None
    label_column: str | None = None
    unlabelled: str | None = None
    paraphrases: str | None = None
    space: str | None = None
    attention: Sequence[str] | str = ()
    tuning: Sequence[str] | str = ()
    technique: Sequence[str] | str = ()
    backbone: Sequence[str] | str = ()
    trials: int | None = None
    time_budget: str | float | None = None
    max_gpu_hours: float | None = None
    gpus: int | None = None
    gpus_per_trial: float | None = None
    workers: int | None = None
    pin_workers: bool = False
    executor: str = "ray"
    address: str | None = None
    insecure_cluster: bool = False
    refit: bool = False
    unchecked: bool = False
    storage: str | Place | None = None
    study: str | None = None
    seed: int = 0
    objective: Sequence[str] | str = ()
    limit: Sequence[str] | str = ()
    sampler: str | None = None
    pruner: str | None = None
    warm_start: Sequence[str] | str = ()
    output: str | None = None


@dataclass(frozen=True)
class Plan:
    """A study that can be begun: its name, where it is kept, its rows and splits, and its specification."""

    name: str
    storage: Place
    folder: Path
    rows: Rows
    splits: Mapping[str, Split]
    budget: Budget
    spec: Mapping[str, Any]
    notes: tuple[str, ...]
    evidence: tuple[Row, ...] = ()
    extra: Extra = NOTHING_MORE


def plan(request: Request, host: Host) -> Plan:
    """Read the data, join the space, and check it all. Raises BadInput."""
    check_workers(vars(request))
    task_class: type[Task] = host.get("task", request.task)
    aims, file = _aims(request, task_class), _file(request, task_class, host)
    storage, folder, name = _places(request, task_class.own_data)
    task = reading_longest(file, task_class)
    rows = without_duplicates(task.read(_source(request)))
    splits = _splits(task, request.seed, rows)
    train, validation, test = splits[SEARCH]
    extra = _extra(request, task, rows, test)
    prepared = prepared_by(task, longest_reader(file, host), rows.take(train))
    prepared.targets(rows)  # the test too, so that it is refused now: it is not looked at before the search is over
    prepared.encode(rows.take(test).inputs)
    seen = rows.take([*train, *validation]).inputs
    found = space_over(file, task_class, prepared, seen, host, unchecked=request.unchecked, here=not request.address)
    facts = {**aims, **_facts(request, found)}
    judged = len(validation) if _validation_given(rows) else 0
    most = most_read(found.space, facts, host, rows.take(train), extra, judged)
    splits = _judged_less(task, request.seed, rows, splits, most_judged(most)) if most else splits
    spec, space = {**facts, **_data_facts(task, rows, splits[SEARCH], extra)}, reading(found.space, most)
    warmth = warm_start(_studies(request, storage), spec, space)
    spec["space"] = replace(space, recipes=warmth.recipes).to_json()
    spec["first"] = first_draws(spec, host.get("sampler", spec["sampler"])(), warmth.evidence, host)
    cut = _cut(found.lengths, prepared.max_len, found.models)
    notes = (*rows.notes, *cut, *_told(extra), *told(most, spec["parts"]["train"]), *found.left_out, *warmth.notes)
    return Plan(name, storage, folder, rows, splits, found.file.budget, spec, notes, warmth.evidence, extra)


def _aims(request: Request, task: type[Task]) -> dict[str, Any]:
    """What a specification says of objectives and limits. Raises BadInput."""
    objectives = objectives_from(listed(request.objective) or [task.objective], task.directions, request.task)
    limits = limits_from(listed(request.limit), task.directions, request.task)
    return {
        "objective": objectives[0].name,
        "direction": objectives[0].direction,
        "objectives": [each.name for each in objectives],
        "directions": [each.direction for each in objectives],
        "limits": [list(each) for each in limits],
    }


def _file(request: Request, task: type[Task], host: Host) -> SpaceFile:
    """The space file with all that is asked for instead or beside. Raises BadInput."""
    backbones = chosen_from(listed(request.backbone), host)
    file = _overridden(read_space(request.space or backbones.space or space_for(task)), request, host)
    given = [each for each in Extra._fields if getattr(request, each) is not None]
    file = with_learners(backbones.over(asked_for(file, request, task, host), host), given, host)
    refuse_idle(file, request, host)
    return file


def _facts(request: Request, found: Searched) -> dict[str, Any]:
    """What a specification says of the search."""
    return {
        "task": request.task,
        "seed": request.seed,
        "space": found.space.to_json(),
        "space_name": found.file.name,
        "budget": asdict(found.file.budget),
        "sampler": found.file.sampler,
        "pruner": found.file.pruner,
        "versions": {each: version(each) for each in VERSIONS},
        "refit": request.refit,
        "unchecked": request.unchecked,
        "workers": {each: getattr(request, each) for each in WORKERS},
    }


def _data_facts(task: Task, rows: Rows, split: Split, extra: Extra) -> dict[str, Any]:
    """What a specification says of the rows."""
    return {
        "fingerprint": fingerprint(rows),
        "content": content(rows),
        "locked": content(rows.take(split.test)),
        "described": {**task.describe(rows), **{name: len(each) for name, each in extra._asdict().items() if each}},
        "parts": {part: len(getattr(split, part)) for part in Split._fields},
        "validation_given": _validation_given(rows),
    }


def _studies(request: Request, storage: Place) -> list[tuple[Store, str]]:
    """The studies of --warm-start: in this storage by name, in another as STORAGE:NAME."""
    parts = [each.rpartition(":") for each in listed(request.warm_start)]
    return [(read(place_of(place) if place else storage), name) for place, _, name in parts]


def refuse_known(planned: Plan) -> None:
    """Raise BadInput if there is a study of this name, ours or not: what Optuna alone began cannot go on here."""
    if planned.name not in planned.storage.names():
        return
    ours = planned.name in Store(planned.storage.open_reader()).names()
    resume = f"Go on with it: deepmine-auto resume {planned.name}{flag_of(planned.storage)}; or choose another --study."
    what = f"There is a study '{planned.name}' in {planned.storage} already."
    raise BadInput(what, resume if ours else "Choose another name: --study.")


WORKERS = ("executor", "gpus", "gpus_per_trial", "workers", "pin_workers", "address", "insecure_cluster")
"""What a specification says of where trials run."""

MOST_JUDGED = 10_000
"""No more rows are held out for validation, and no more for the test: they tell models apart that are half a point of
accuracy apart, and a trial has to read all of them several times."""

VERSIONS = ("deepmine-auto", "torch", "optuna", "ray")
"""Distributions whose change can change what a study finds."""


def check_workers(asked: Mapping[str, Any]) -> None:
    """Refuse an executor that there is not, and numbers that nothing can be. Raises BadInput."""
    if asked["executor"] not in EXECUTORS:
        raise unknown(asked["executor"], EXECUTORS, "executor")
    for name in ("gpus", "workers", "gpus_per_trial"):
        value = asked[name]
        least = 0 if name == "gpus" else 1e-9
        if value is not None and not value >= least:  # NaN too
            raise BadInput(f"--{name.replace('_', '-')} is {value}.", "Give a larger number.")
    if asked["executor"] == "inline":
        _refuse_beside_inline(asked)
    if asked.get("pin_workers") and not asked["address"] and not can_keep():
        raise BadInput("This system cannot keep workers to cores.", "Leave --pin-workers out, or search on Linux.")


def _refuse_beside_inline(asked: Mapping[str, Any]) -> None:
    one_worker = {**asked, "workers": None} if asked["workers"] == 1 else asked
    for name in ("gpus", "gpus_per_trial", "workers", "pin_workers", "address"):
        if one_worker.get(name):
            what = f"The inline executor has one worker in this process, and takes no --{name.replace('_', '-')}."
            raise BadInput(what, "Use --executor ray.")


def _overridden(file: SpaceFile, request: Request, host: Host) -> SpaceFile:
    """The space file with the sampler, pruner and budget that the command line says instead."""
    sampler, pruner = request.sampler or file.sampler, request.pruner or file.pruner
    host.get("sampler", sampler)
    host.get("pruner", pruner)
    asked = None if request.time_budget is None else seconds_of(str(request.time_budget))
    given = Budget(request.trials, asked, request.max_gpu_hours)
    budget = given if given.set else file.budget
    if not budget.set:
        raise BadInput(f"{file.where} sets no budget.", "Give --trials or --time-budget.")
    return replace(file, sampler=sampler, pruner=pruner, budget=budget.check())


def _places(request: Request, own_data: str) -> tuple[Place, Path, str]:
    storage = place_of(request.storage)
    name = request.study or _free_name(request, storage, own_data)
    if not NAME.fullmatch(name):
        raise BadInput(f"'{name}' is no study name.", "Use up to 64 letters, digits, dots, dashes and underscores.")
    folder = Path(request.output).expanduser() if request.output else storage.folder / name
    return storage, folder.absolute(), name


def _free_name(request: Request, storage: Place, own_data: str) -> str:
    """Task, data and day, and a number where that exists: a dashboard's home page shows nothing but the name."""
    paths = listed(request.data)
    data = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(paths[0].rpartition("=")[2]).stem) if paths else own_data
    stem = f"{request.task}-{data}"[:50].rstrip("-.") + f"-{date.today():%m%d}"
    taken = storage.names()
    numbered = (f"{stem}-{number}" for number in count(2))  # folders may outlive their studies
    return next(each for each in chain([stem], numbered) if each not in taken and not (storage.folder / each).exists())


def _source(request: Request) -> Source:
    paths = listed(request.data)
    if paths:
        return source_from(paths, request.text_column, request.label_column)
    texts = None if request.unlabelled or request.paraphrases else request.text_column
    for option, column in (("--text-column", texts), ("--label-column", request.label_column)):
        if column is not None:
            raise BadInput(f"{option} names a column of your rows, and there are none.", "Give --data FILE.")
    return Source()


def _extra(request: Request, task: Task, rows: Rows, test: Sequence[int]) -> Extra:
    """Read what is given beside the rows."""
    visible, tested = rows.take(sorted({*range(len(rows))} - {*test})), rows.take(test)
    return Extra(
        _beside(request, request.unlabelled, task.read_unlabelled, rows),
        _beside(request, request.paraphrases, task.read_paraphrases, visible, tested),
    )


def _beside(request: Request, file: str | None, reader: Callable[..., Sequence[Any]], *rows: Rows) -> Sequence[Any]:
    """Read one file beside the rows. Its texts may stand in a column of another name than those of the rows."""
    if file is None:
        return ()
    path = Path(file).expanduser()
    try:
        return reader(path, request.text_column, *rows)
    except NoSuchColumn:
        if not listed(request.data):  # the name was given for this file
            raise
        return reader(path, None, *rows)


def _cut(lengths: Sequence[int], most: int, models: Sequence[Skeleton]) -> Iterator[str]:
    """Of pieces of words, which pretrained models read, there are more than of words, which the task has counted."""
    full = sum(each >= most for each in lengths)
    if models and full:
        what = f"{full:,} of {len(lengths):,} texts fill the {most:,} tokens that are read of each, or are cut there"
        yield f'{what}; "data/max_len" in a search space says otherwise, up to what the model has positions for.'


def _told(extra: Extra) -> Iterator[str]:
    if extra.unlabelled:
        yield f"{len(extra.unlabelled):,} rows without labels are learned from."
    if extra.paraphrases:
        texts = len({text for text, _ in extra.paraphrases})
        yield f"{len(extra.paraphrases):,} paraphrases of {texts:,} texts are learned from."


def _splits(task: Task, seed: int, rows: Rows) -> Mapping[str, Split]:
    """The split that trials use, and one for each repeat of the finals, with the same test rows. Where validation rows
    were given, the repeats have the same too: who cut them off, by date or by author, wants none learned from."""
    strata = task.strata(rows)
    first = split(strata, seed_of(seed, "split"), rows.parts, most=MOST_JUDGED)
    return _with_repeats(task, seed, rows, first, strata)


def _judged_less(task: Task, seed: int, rows: Rows, before: Mapping[str, Split], most: int) -> Mapping[str, Split]:
    """The splits where no more validation rows are held out than so many; those that were given stay."""
    if _validation_given(rows) or len(before[SEARCH].validation) <= most:
        return before
    strata = task.strata(rows)
    return _with_repeats(task, seed, rows, fewer_judged(before[SEARCH], strata, most, seed_of(seed, "judged")), strata)


def _with_repeats(task: Task, seed: int, rows: Rows, first: Split, strata: Sequence[Any]) -> dict[str, Split]:
    given = _validation_given(rows)
    again = {each: first if given else _dealt(task, rows, first, strata, seed, each) for each in range(REPEATS)}
    return {SEARCH: first, **{rerun_split(each): dealt for each, dealt in again.items()}}


def _dealt(task: Task, rows: Rows, first: Split, strata: Sequence[Any], seed: int, repeat: int) -> Split:
    """Another split with the same test. Where each token has its own answer, rows have no class that is dealt to both
    parts, and one whose training rows lack an answer would be refused in every rerun: then it is dealt once more."""
    for again in range(DEALT if task.each_token else 1):
        found = resplit(first, strata, seed_of(seed, "split", repeat, *([again] if again else [])))
        if not task.each_token or _knows(task, rows, found):
            return found
    return first


def _knows(task: Task, rows: Rows, dealt: Split) -> bool:
    """Whether what is fitted on the training rows knows the answers of the validation rows."""
    try:
        task.prepare(rows.take(dealt.train)).targets(rows.take(dealt.validation))
    except BadInput:
        return False
    return True


def _validation_given(rows: Rows) -> bool:
    return "validation" in (rows.parts or ())
