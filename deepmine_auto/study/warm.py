"""A warm start: what earlier studies of the same task have found is tried first, and shown to the sampler.

It never becomes a row of the new study, and its values are not compared with values there: only the order of an earlier
study's trials counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from optuna.trial import FrozenTrial, TrialState

from deepmine_auto.errors import BadInput, unknown
from deepmine_auto.space import Space, Value
from deepmine_auto.storage import tables
from deepmine_auto.storage.store import Row, Store, StudyRow
from deepmine_auto.study.causes import ENDS
from deepmine_auto.study.finals import FINALISTS, may_win
from deepmine_auto.study.pruning import oriented
from deepmine_auto.study.ranking import best_first
from deepmine_auto.study.spaces import Spaces

Params = Mapping[str, Value]


class Warmth(NamedTuple):
    """What a new study is begun with: recipes for its first trials, rows of the table `evidence`, and what to tell."""

    recipes: tuple[Params, ...]
    evidence: tuple[Row, ...]
    notes: tuple[str, ...]


class _Earlier(NamedTuple):
    """A trial of an earlier study, with all its params; `rank` is the share of that study's trials that it beats."""

    number: int
    complete: bool
    params: Params
    rank: float


def warm_start(sources: Iterable[tuple[Store, str]], spec: Mapping[str, Any], space: Space) -> Warmth:
    """What the named studies say of a new one with this specification (task, objectives, directions, content, locked).

    Its recipes become the first of the space, the winner and the best trials of each study, as far as the space can say
    them, and then the space's others. Raises BadInput for an unknown study, one of another task or without an
    objective, one that says nothing here, and one that has learned from rows that are locked here.
    """
    recipes: list[Params] = []
    evidence: list[Row] = []
    notes: list[str] = []
    for store, name in sources:
        source = _source(store, name, spec)
        ranked = _ranked(store, source, spec["objectives"])
        fitting = [each for each in ranked if space.fit(each.params) is not None]
        if not fitting:
            raise BadInput(f"No trial of the study '{name}' fits this search space.", "Leave out --warm-start.")
        evidence += [_row(number, name, each) for number, each in enumerate(fitting, len(evidence))]
        recipes += _best(fitting, source, space)
        notes.append(_told(source, len(fitting), len(ranked), spec))
    recipes = [*space.recipes[:1], *recipes, *space.recipes[1:]]  # the baseline stays the first trial
    distinct = (each for at, each in enumerate(recipes) if each not in recipes[:at])
    return Warmth(tuple(distinct), tuple(evidence), tuple(notes))


def _source(store: Store, name: str, spec: Mapping[str, Any]) -> StudyRow:
    if name not in store.names():
        raise unknown(name, store.names(), "study to start from")
    source = store.study(name)
    if source.spec["task"] != spec["task"]:
        what = f"The study '{name}' is of the task '{source.spec['task']}', and this one of '{spec['task']}'."
        raise BadInput(what, "A warm start wants a study of the same task.")
    missing = set(spec["objectives"]) - {each.name for each in source.objectives}
    if missing:
        what = f"The study '{name}' was not searched for {', '.join(sorted(missing))}."
        raise BadInput(what, f"It was for {', '.join(each.name for each in source.objectives)}: see --objective.")
    if _knows_the_test(source.spec, spec):
        what = f"The study '{name}' has learned from rows that would be the locked test of this one."
        raise BadInput(what, f"Split the rows as it did: in its order, with --seed {source.spec['seed']}.")
    return source


def _knows_the_test(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether an earlier study has learned from rows that a new one locks away; of old ones, which do not say what they
    locked in whatever order, their seed says so."""
    same, by = ("content", "locked") if "content" in before else ("fingerprint", "seed")
    return bool(before[same] == now[same] and before[by] != now[by])


def _ranked(store: Store, source: StudyRow, objectives: Sequence[str]) -> list[_Earlier]:
    """The ended trials of a study that say something, best first: the winner where the deadline cut it off and it was
    then trained again, complete ones, pruned ones by how far they came, and those that failed because of their params.
    What only broke a limit of that study says nothing here."""
    ended = [each for each in store.trials(source.id) if each.state.is_finished()]
    sound = [each for each in ended if may_win(each)]
    complete = [each for each in sound if each.state == TrialState.COMPLETE]
    pruned = [each for each in sound if each.state == TrialState.PRUNED]
    blamed = [each for each in ended if _blamed(each)]
    good = _complete_first(complete, source, objectives) + _farthest_first(pruned, store, source)
    cut_off = [each.number for each in pruned if each.number == _trained_again(source)]
    good.sort(key=lambda each: each.number not in cut_off)
    most, spaces = len(good) + len(blamed), Spaces.of(store, source)
    ranks = [*((most - 1 - at) / most for at in range(len(good))), *(0.0 for _ in blamed)]
    return [
        _Earlier(each.number, each.state == TrialState.COMPLETE, spaces.complete(each.number, each.params), rank)
        for each, rank in zip([*good, *blamed], ranks, strict=True)
    ]


def _complete_first(trials: list[FrozenTrial], source: StudyRow, objectives: Sequence[str]) -> list[FrozenTrial]:
    columns = [[each.name for each in source.objectives].index(name) for name in objectives]
    values = [[each.values[column] for column in columns] for each in trials]
    directions = [source.directions[column] for column in columns]
    return [trials[at] for at in best_first(values, directions, len(trials))]


def _farthest_first(trials: list[FrozenTrial], store: Store, source: StudyRow) -> list[FrozenTrial]:
    """By the last report of each: first the share of its own budget, because steps of two trials do not compare."""
    rows = (row for row in store.rows(tables.reports, source.id) if row["kind"] == "trial")
    reached = {row["number"]: (row["share"], oriented(row["value"], source.direction)) for row in rows}
    return sorted(trials, key=lambda each: reached.get(each.number, (-1, 0.0)), reverse=True)


ELSEWHERE = ("limit", "lost")
"""What need not happen in another study: its limits are others, and so may be its machines."""


def _blamed(trial: FrozenTrial) -> bool:
    cause = trial.user_attrs.get("cause")
    return cause not in ELSEWHERE and cause in ENDS and ENDS[cause].infeasible


def _row(number: int, source: str, each: _Earlier) -> Row:
    return {"number": number, "source": source, "params": dict(each.params), "rank": each.rank}


def _best(fitting: Sequence[_Earlier], source: StudyRow, space: Space) -> list[Params]:
    """The winner, which was trained again before it was named, and then the best values."""
    winner = (source.result or {}).get("winner")
    whole = [each for each in fitting if each.complete or each.number == _trained_again(source)]
    first = sorted(whole, key=lambda each: each.number != winner)
    return [fit for each in first[:FINALISTS] if (fit := space.fit(each.params)) is not None]


def _trained_again(source: StudyRow) -> int | None:
    """The winner, where reruns named it: the deadline may have cut the trial itself off."""
    result = source.result or {}
    return None if result.get("rerun") is None else result["winner"]


def _told(source: StudyRow, fitting: int, ranked: int, spec: Mapping[str, Any]) -> str:
    other = "" if source.spec["fingerprint"] == spec["fingerprint"] else ", which was searched on other data,"
    return f"warm start: {fitting} of {ranked} trials of the study '{source.name}'{other} fit this search space"
