"""Data-size fidelity: how many rows a trial reads, where a whole training would take too much of a search's time, and
how many it is judged by and the winner is tested on then.

A trial that reads a part of the rows, in random order, says nearly as well as a whole one which params are better, and
a search needs several (arXiv:1605.07079).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from deepmine_auto.data import kept
from deepmine_auto.data.rows import NOTHING_MORE, Extra, Rows
from deepmine_auto.data.split import Split
from deepmine_auto.executors.crew import crew_of
from deepmine_auto.host import Host
from deepmine_auto.model.assemble import task_of
from deepmine_auto.planning.calibrating import paces
from deepmine_auto.scratch import scratch
from deepmine_auto.space import FIDELITY, Choice, Space
from deepmine_auto.study.baseline import rows_to_fit
from deepmine_auto.study.budget import Budget
from deepmine_auto.training.recipe import READINGS, THINNED
from deepmine_auto.training.trial import let_go

MANY = 20_000
"""Of fewer training rows a trial reads all, as often as its epochs say; nothing is measured for them."""

TRIALS = 6
"""A trial reads what the slowest of the first models can if the time is to be enough for so many, one after the other:
so several end, and so do reruns. Of evaluations only those by rows that were given count: the others are few."""

FEWEST = 2_000
"""It reads so many rows in any case, and is judged by so many, and the winner tested on so many, where there are."""

READ_FOR_JUDGED = 4
"""It reads so many rows at least for each that it is judged by, as it is judged several times."""

MEASURED = 2_000
"""Some models are tried on so many rows."""


def most_read(
    space: Space, spec: Mapping[str, Any], host: Host, train: Rows, extra: Extra = NOTHING_MORE, judged: int = 0
) -> int:
    """The most rows that a trial of a space may read, so that it takes its share of the time on this machine, where so
    many validation rows were given; 0, for no limit, where there are not many rows, or neither time nor GPU hours pass,
    or the space says by itself how many are read, or trials run elsewhere."""
    says = FIDELITY in {*space.fixed, *(each.name for each in space.params)}
    if says or len(train) < MANY or spec["workers"]["address"] or math.isinf(seconds := _seconds(spec)):
        return 0
    pace = _pace(space, spec, host, train, extra)
    judging = len(THINNED[-1]) * judged / READINGS
    most = max(FEWEST, _rounded(seconds / TRIALS / pace - judging)) if pace else 0
    return most if most < len(train) * _epochs(space) else 0


def reading(space: Space, most: int) -> Space:
    """A space of which no trial reads more rows than so many."""
    return replace(space, fixed={**space.fixed, FIDELITY: most}) if most else space


def most_judged(most: int) -> int:
    """The most rows by which a trial is judged that reads so many at most."""
    return max(FEWEST, most // READ_FOR_JUDGED)


def most_tested(most: int) -> int:
    """The most rows on which the winner is tested where a trial reads so many: it takes a third of that time."""
    return max(FEWEST, most)


def told(most: int, parts: Mapping[str, int], locked: int) -> Iterator[str]:
    """What a user is told of it, where so many rows are in each part and so many are locked away for the test."""
    if not most:
        return
    why = f'more would take over a sixth of the time. "{FIDELITY}" in a space changes that.'
    yield f"A trial reads {most:,} rows at most in all, of {parts['train']:,}: {why}"
    if parts["test"] < locked:
        yield f"The winner is tested on {parts['test']:,} of {locked:,} rows that are held out for it."


def _seconds(spec: Mapping[str, Any]) -> float:
    """The time of a search, where GPU hours pass too; infinite where nothing limits it."""
    budget = Budget(**spec["budget"])
    return budget.seconds_on(0.0 if budget.gpu_hours is None else crew_of(spec["workers"]).gpus)


def _pace(space: Space, spec: Mapping[str, Any], host: Host, train: Rows, extra: Extra) -> float:
    """The seconds for which the slowest of the first models learns from a row; 0 where none can be trained: trials say
    why."""
    some = rows_to_fit(task_of(spec["task"], {}, host), train, MEASURED)
    everything = list(range(len(some)))
    with scratch("deepmine-pace") as folder:
        few = extra._replace(unlabelled=extra.unlabelled[:MEASURED])
        kept.keep(folder, some, {kept.SEARCH: Split(everything, everything[:1], [])}, few)
        found = paces(reading(space, len(some) - 1), spec, host, folder)  # who reads a part remembers nothing
    let_go()  # workers may share this process's GPU
    return max(found, default=0.0)


def _epochs(space: Space) -> int:
    """The most epochs that a trial of the space may have."""
    searched = next((each.range for each in space.params if each.name == "training/epochs"), None)
    if searched is None:
        return int(space.fixed["training/epochs"])
    return int(max(searched.options) if isinstance(searched, Choice) else searched.high)


def _rounded(rows: float) -> int:
    """Two digits of a number: what was measured is no better."""
    return int(float(f"{rows:.1e}"))
