"""Which rows trials learn from, and which they are judged by: one split for the search, and one for each rerun."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deepmine_auto.contracts import Task
from deepmine_auto.data.kept import SEARCH
from deepmine_auto.data.rows import Rows
from deepmine_auto.data.split import Split, fewer_judged, fewer_tested, resplit, split
from deepmine_auto.errors import BadInput
from deepmine_auto.study.finals import REPEATS
from deepmine_auto.study.seeding import rerun_split, seed_of

MOST_JUDGED = 10_000
"""No more rows are held out for validation, and no more for the test: they tell models apart that are half a point of
accuracy apart, and a trial has to read all of them several times."""

DEALT = 20
"""So often the rows are dealt anew for a rerun, until its training rows know all answers."""


def splits_of(task: Task, seed: int, rows: Rows) -> Mapping[str, Split]:
    """The split that trials use, and one for each repeat of the finals, with the same test rows. Where validation rows
    were given, the repeats have the same too: who cut them off, by date or by author, wants none learned from."""
    strata = task.strata(rows)
    first = split(strata, seed_of(seed, "split"), rows.parts, most=MOST_JUDGED)
    return _with_repeats(task, seed, rows, first, strata)


def fewer_held_out(
    task: Task, seed: int, rows: Rows, before: Mapping[str, Split], validation: int, test: int
) -> Mapping[str, Split]:
    """The splits with no more validation rows, and no more test rows, than so many; those that were given stay."""
    first, strata, given = before[SEARCH], task.strata(rows), rows.parts or ()
    if "validation" not in given and len(first.validation) > validation:
        first = fewer_judged(first, strata, validation, seed_of(seed, "judged"))
    if "test" not in given and len(first.test) > test:
        first = fewer_tested(first, strata, test, seed_of(seed, "tested"))
    return before if first is before[SEARCH] else _with_repeats(task, seed, rows, first, strata)


def _with_repeats(task: Task, seed: int, rows: Rows, first: Split, strata: Sequence[Any]) -> dict[str, Split]:
    given = validation_given(rows)
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


def validation_given(rows: Rows) -> bool:
    """Whether a user says which rows are for validation."""
    return "validation" in (rows.parts or ())
