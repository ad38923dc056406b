"""Plugins that raise again and again are proposed no more in this study; what the rows say decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from optuna.trial import FrozenTrial

from deepmine_auto.errors import DeepmineError
from deepmine_auto.space import Space, Value
from deepmine_auto.storage.store import Row
from deepmine_auto.study.mirror import Barred
from deepmine_auto.study.seeding import seed_of

SET_ASIDE_AFTER = 3
"""A plugin that raised in so many different trials is set aside."""

KINDS_OF_PARAMS = {"model": "backbone", "placement/hybrid": "attention"}
"""The kind of plugin that a param's first words mean, where they are others."""

HYBRID = "placement/hybrid/kind"


class NothingInItsPlace(DeepmineError):
    """A proposal asks for a plugin that is set aside, and the space has no other."""


def set_aside(trials: Iterable[FrozenTrial], since: Mapping[str, int] | None = None) -> set[str]:
    """Plugins (`kind/name`) that raised in too many trials. `since` says from which trial on each is what it is now:
    who has mended one finds it proposed again."""
    # a driver that was killed may have told of an end by half
    ended = [each for each in trials if each.state.is_finished() and each.user_attrs.get("cause") == "plugin"]
    blamed = ((each.user_attrs.get("plugin"), each.number) for each in ended)
    raised = Counter(plugin for plugin, number in blamed if plugin and number >= (since or {}).get(plugin, number))
    return {plugin for plugin, count in raised.items() if count >= SET_ASIDE_AFTER}


def as_they_are(plugins: Iterable[Row], number: int) -> dict[str, int]:
    """From which trial on each plugin (`kind/name`) is what it is when trial `number` is proposed, by rows of the table
    of plugins."""
    known = sorted((row for row in plugins if row["since"] <= number), key=lambda row: int(row["since"]))
    return {f"{row['kind']}/{row['name']}": row["since"] for row in known}


def bar(out: set[str], space: Space, seed: int, number: int) -> Barred:
    """What replaces a drawn value of trial `number` whose plugin is set aside."""

    def instead(name: str, value: Value) -> Value | None:
        prefix, _, last = name.rpartition("/")
        kind = KINDS_OF_PARAMS.get(prefix, prefix)
        if last == "use":
            return False if value is True and kind in out and False in _options(space, name) else None
        if (name, value) == ("placement/kind", "hybrid") and not _left(out, space, "attention", HYBRID):
            # no other variant is left that could stand between its layers
            return "same" if "same" in _options(space, name) else None
        if last != "kind" or f"{kind}/{value}" not in out:
            return None
        left = _left(out, space, kind, name)
        return left[seed_of(seed, "instead", number, name) % len(left)] if left else None

    return instead


def refuse(out: set[str], task: str, params: Mapping[str, Any], typed: str) -> None:
    """Raise NothingInItsPlace where params still ask for what is set aside."""
    if not out:
        return
    from deepmine_auto.model.assemble import plugins_of

    for kind, name in plugins_of(task, params):
        if f"{kind}/{name}" in out:
            what = f"The {kind} '{name}' raised in {SET_ASIDE_AFTER} trials, and this space has nothing in its place."
            raise NothingInItsPlace(what, f"See `deepmine-auto trials {typed}`.")


def _left(out: set[str], space: Space, kind: str, name: str) -> list[Value]:
    return [each for each in _options(space, name) if f"{kind}/{each}" not in out]


def _options(space: Space, name: str) -> tuple[Value, ...]:
    if name in space.fixed:
        return (space.fixed[name],)
    ranges = {each.name: each.range for each in space.params}
    return tuple(getattr(ranges[name], "options", ()))
