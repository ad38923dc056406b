"""The search spaces of a study. The first stands in its specification; each later one holds from some trial on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from deepmine_auto.space import Choice, Param, Space, Value, essential
from deepmine_auto.storage import tables
from deepmine_auto.storage.store import Row, Store, StudyRow


class Spaces:
    """What each trial could have been given, and what it was given without its row repeating it."""

    def __init__(self, spec: Mapping[str, Any], rows: Iterable[Row]) -> None:
        first = {"since": 0, "name": spec["space_name"], "space": spec["space"]}
        ordered = sorted([first, *rows], key=lambda row: int(row["since"]))
        self._since = [int(row["since"]) for row in ordered]
        self._names = [str(row["name"]) for row in ordered]
        self._spaces = [Space.from_json(row["space"]) for row in ordered]
        self._first: list[Mapping[str, Value]] = spec.get("first", [])
        self._recipes = self._queue()

    @classmethod
    def of(cls, store: Store, study: StudyRow) -> Spaces:
        """Read the spaces of a study."""
        return cls(study.spec, store.rows(tables.spaces, study.id))

    def _place(self, number: int) -> int:
        return max(at for at, since in enumerate(self._since) if since <= number)

    def at(self, number: int) -> Space:
        """The space that trial `number` is drawn from."""
        return self._spaces[self._place(number)]

    def name(self, number: int) -> str:
        """The name of that space."""
        return self._names[self._place(number)]

    @property
    def now(self) -> Space:
        """The newest space."""
        return self._spaces[-1]

    @property
    def name_now(self) -> str:
        """Its name."""
        return self._names[-1]

    def complete(self, number: int, params: Mapping[str, Value]) -> dict[str, Value]:
        """All that trial `number` was built from, by plain names: its row's params, and what its space fixed."""
        return self.at(number).complete(params)

    def recipe(self, number: int) -> Mapping[str, Value] | None:
        """What trial `number` is to be begun with; None where the sampler is free."""
        return self._recipes.get(number)

    def _queue(self) -> dict[int, Mapping[str, Value]]:
        """Recipes by number: each space's own at its beginning, but none that came to its turn before. After those of
        the first space comes what was drawn for it beforehand."""
        turns: dict[int, Mapping[str, Value]] = {}
        for since, end, space in zip(self._since, [*self._since[1:], None], self._spaces, strict=True):
            known = [essential(each) for each in turns.values()]
            new = [each for each in space.recipes if essential(each) not in known]
            new += self._first if space is self._spaces[0] else []
            turns |= {number: each for number, each in enumerate(new, since) if end is None or number < end}
        return turns


# -- what a new space changes ----------------------------------------------------------------------------------------


def changes(old: Space, new: Space) -> list[str]:
    """One sentence for each param that a new space changes, and one at least; none where it is the old one."""
    before, after = _described(old), _described(new)
    names = [*before, *(each for each in after if each not in before)]
    told = [_change(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]
    other = [] if old == new else ["Recipes, conditions or the order of choices are others."]
    return [each for each in told if each] or other


def _described(space: Space) -> dict[str, Param | Value]:
    return {**{each.name: each for each in space.params}, **space.fixed}


def _change(name: str, before: Param | Value | None, after: Param | Value | None) -> str:
    part_of_plugin = name.count("/") == 2 and not name.endswith("/use")
    if before is None or after is None:  # a plugin that comes or goes is told once, and not with each of its params
        return "" if part_of_plugin else f"{name} {'is new' if before is None else 'is not searched any more'}."
    options, others = _options(before), _options(after)
    if options is None or others is None:
        return f"{name} was {_range(before)}, and is {_range(after)}." if _range(before) != _range(after) else ""
    more = [str(each) for each in others if each not in options]
    less = [str(each) for each in options if each not in others]
    told = [f"{verb} {', '.join(found)}" for verb, found in (("gains", more), ("loses", less)) if found]
    return f"{name} {' and '.join(told)}." if told else ""


def _options(each: Param | Value) -> tuple[Value, ...] | None:
    return each.range.options if isinstance(each, Param) and isinstance(each.range, Choice) else None


def _range(each: Param | Value) -> str:
    if not isinstance(each, Param):
        return str(each)
    log, step = getattr(each.range, "log", False), getattr(each.range, "step", None)
    return f"{each.range}{', log' if log else ''}{f', in steps of {step}' if step not in (None, 1) else ''}"
