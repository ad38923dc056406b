"""From what a user asks for to a plan. Everything that can be refused is refused here, before anything is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

from deepmine_auto.bundle.save import refuse_existing, refuse_unmakeable
from deepmine_auto.contracts import Prepared, Task
from deepmine_auto.data.fingerprint import content, fingerprint
from deepmine_auto.data.kept import SEARCH
from deepmine_auto.data.read import NoSuchColumn, source_from
from deepmine_auto.data.rows import NOTHING_MORE, Extra, Rows, Source
from deepmine_auto.data.split import Split, without_duplicates
from deepmine_auto.errors import BadInput
from deepmine_auto.host import Host
from deepmine_auto.objectives import limits_from, objectives_from
from deepmine_auto.planning.fidelity import most_judged, most_read, most_tested, reading, told
from deepmine_auto.planning.request import WORKERS, Request, check_workers
from deepmine_auto.planning.searchable import Searched, space_over
from deepmine_auto.planning.splits import fewer_held_out, splits_of, validation_given
from deepmine_auto.pretrained.choosing import chosen_from, longest_reader
from deepmine_auto.pretrained.skeleton import Skeleton
from deepmine_auto.space import Space
from deepmine_auto.space_file.adding import reading_longest, with_learners
from deepmine_auto.space_file.asked_for import asked_for, listed, refuse_idle
from deepmine_auto.space_file.reading import SpaceFile, read_space, space_for
from deepmine_auto.storage.place import Place, flag_of, place_of, read
from deepmine_auto.storage.store import Row, Store
from deepmine_auto.study.budget import Budget, seconds_of
from deepmine_auto.study.cheap_first import first_draws
from deepmine_auto.study.warm import warm_start
from deepmine_auto.training.prepared import prepared_by

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


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


def plan(request: Request, host: Host, *, begins: bool = False) -> Plan:
    """Read the data, join the space, and check it all; where the study `begins` then, its folder can be made too.
    Raises BadInput."""
    check_workers(vars(request))
    task_class: type[Task] = host.get("task", request.task)
    storage, folder, name = _places(request, task_class.own_data)
    if begins:
        refuse_unmakeable(folder)
    aims, file = _aims(request, task_class), _file(request, task_class, host)
    task = reading_longest(file, task_class)
    given = _given(request, task, file, host)
    rows, prepared, extra = given.rows, given.prepared, given.extra
    seen, here = rows.take([*given.split.train, *given.split.validation]).inputs, not request.address
    found = space_over(file, task_class, prepared, seen, host, unchecked=request.unchecked, here=here)
    facts = {**aims, **_facts(request, found)}
    most, splits = _in_time(given, task, found.space, facts, host)
    spec, space = {**facts, **_data_facts(task, given, splits[SEARCH])}, reading(found.space, most)
    warmth = warm_start(_studies(request, storage), spec, space)
    spec["space"] = replace(space, recipes=warmth.recipes).to_json()
    spec["first"] = first_draws(spec, host.get("sampler", spec["sampler"])(), warmth.evidence, host)
    of_rows = (*rows.notes, *_cut(found.lengths, prepared.max_len, found.models), *_told(extra))
    notes = (*of_rows, *told(most, spec["parts"], len(given.split.test)), *found.left_out, *warmth.notes)
    return Plan(name, storage, folder, rows, splits, found.file.budget, spec, notes, warmth.evidence, extra)


class _Given(NamedTuple):
    """What a user gave: the rows and how they are split, what stands beside them, and what is fitted on them."""

    rows: Rows
    splits: Mapping[str, Split]
    extra: Extra
    prepared: Prepared

    @property
    def split(self) -> Split:
        """That of the search."""
        return self.splits[SEARCH]


def _given(request: Request, task: Task, file: SpaceFile, host: Host) -> _Given:
    """Read it, and encode the test's rows too, so that a bad one is refused now. Raises BadInput."""
    rows = without_duplicates(task.read(_source(request)))
    splits = splits_of(task, request.seed, rows)
    train, _, test = splits[SEARCH]
    extra = _extra(request, task, rows, test)
    prepared = prepared_by(task, longest_reader(file, host), rows.take(train))
    prepared.targets(rows)
    prepared.encode(rows.take(test).inputs)
    return _Given(rows, splits, extra, prepared)


def _in_time(
    given: _Given, task: Task, space: Space, facts: Mapping[str, Any], host: Host
) -> tuple[int, Mapping[str, Split]]:
    """The most rows that a trial reads, 0 for all that its epochs have, and splits that go with it."""
    train, validation, _ = given.split
    judged = len(validation) if validation_given(given.rows) else 0
    most = most_read(space, facts, host, given.rows.take(train), given.extra, judged)
    if not most:
        return 0, given.splits
    fewer = fewer_held_out(task, facts["seed"], given.rows, given.splits, most_judged(most), most_tested(most))
    return most, fewer


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


def _data_facts(task: Task, given: _Given, split: Split) -> dict[str, Any]:
    """What a specification says of the rows where they are split so."""
    rows, extra = given.rows, given.extra
    return {
        "fingerprint": fingerprint(rows),
        "content": content(rows),
        "locked": content(rows.take(given.split.test)),
        "described": {**task.describe(rows), **{name: len(each) for name, each in extra._asdict().items() if each}},
        "parts": {part: len(getattr(split, part)) for part in Split._fields},
        "validation_given": validation_given(rows),
    }


def _studies(request: Request, storage: Place) -> list[tuple[Store, str]]:
    """The studies of --warm-start: in this storage by name, in another as STORAGE:NAME."""
    parts = [each.rpartition(":") for each in listed(request.warm_start)]
    return [(read(place_of(place) if place else storage), name) for place, _, name in parts]


def refuse_known(storage: Place, name: str) -> None:
    """Raise BadInput if there is a study of this name, ours or not: what Optuna alone began cannot go on here."""
    if name not in storage.names():
        return
    ours = name in Store(storage.open_reader()).names()
    resume = f"Go on with it: deepmine-auto resume {name}{flag_of(storage)}; or choose another --study."
    what = f"There is a study '{name}' in {storage} already."
    raise BadInput(what, resume if ours else "Choose another name: --study.")


VERSIONS = ("deepmine-auto", "torch", "optuna", "ray")
"""Distributions whose change can change what a study finds."""


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
    """Where a study would be, its folder and its name, none of which there is yet. Raises BadInput."""
    storage = place_of(request.storage)
    name = request.study or _free_name(request, storage, own_data)
    if not NAME.fullmatch(name):
        raise BadInput(f"'{name}' is no study name.", "Use up to 64 letters, digits, dots, dashes and underscores.")
    refuse_known(storage, name)
    folder = (Path(request.output).expanduser() if request.output else storage.folder / name).absolute()
    refuse_existing(folder)
    return storage, folder, name


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
