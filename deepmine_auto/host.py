"""The plugin host: finds plugins by entry point, loads each in its own guard, and says what is wrong with the others.

Pluggy's stock loader dies of the first broken plugin and silently drops the second of two equal names; this one
quarantines, and shows why (`deepmine-auto plugins list`).
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint, distributions, version
from typing import Any, TypeVar

import pluggy
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from deepmine_auto import hookspecs
from deepmine_auto.contracts import KINDS, Attention, Brought, Plugin, Technique
from deepmine_auto.errors import BadInput, DeepmineError, PluginError, unknown
from deepmine_auto.sources import hash_of

OURS = "deepmine-auto"
DOOR = "door"
"""The kind of what is set aside before it can say which plugins it brings."""
SLOW_SECONDS = 2.0
HOOKS = {"attention": "attentions", "task": "tasks", "backbone": "backbones", "tuning": "tunings",
         "optimizer": "optimizers", "schedule": "schedules", "technique": "techniques", "sampler": "samplers",
         "pruner": "pruners", "command": "commands"}  # fmt: skip
"""The hook that brings each kind."""
NAME = re.compile(r"[\w.-]+")
"""What a plugin may be called: a slash would divide its params otherwise, a comma the names of an option."""

T = TypeVar("T")


@dataclass(frozen=True)
class Door:
    """An entry point with the distribution that carries it."""

    entry: EntryPoint
    distribution: str
    version: str
    requires: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.entry.name} of {self.distribution} {self.version}"


@dataclass(frozen=True)
class Broken:
    """A plugin that is set aside, and why."""

    what: str
    distribution: str
    why: str
    kind: str = DOOR

    def means(self, name: str) -> bool:
        """Whether a plugin of this name is meant: what failed to load has none yet, and its package, its file or its
        class is called like it."""
        module, _, cls = self.what.partition(":")
        package, *_, file = f"{module}.{module}".split(".")
        return name in (self.what, package, file) or (bool(cls) and name.replace("_", "") == cls.lower())


@dataclass
class Host:
    """The doors that opened, and what was set aside."""

    manager: pluggy.PluginManager
    doors: dict[str, Door]
    broken: list[Broken] = field(default_factory=list)
    _offered: dict[str, dict[str, Brought]] = field(default_factory=dict)

    def offered(self, kind: str) -> dict[str, Brought]:
        """Every usable plugin of a kind, by name. Loads them on first use."""
        if kind not in self._offered:
            self._offered[kind] = self._load(kind)
        return self._offered[kind]

    def brought(self, kind: str, name: str) -> Brought:
        """One plugin. Raises BadInput with the nearest name, or with the reason why it was set aside."""
        offered = self.offered(kind)
        if name in offered:
            return offered[name]
        self.refuse_broken(name, [kind])
        raise unknown(name, offered, kind, f"`deepmine-auto plugins list --kind {kind}` lists them all.")

    def refuse_broken(self, name: str, kinds: Collection[str]) -> None:
        """Raise BadInput with the reason where a plugin of this name and one of these kinds was set aside, or the door
        behind which it would stand."""
        for each in self.broken:
            if each.kind in (*kinds, DOOR) and each.means(name):
                what = "plugin" if each.kind == DOOR else each.kind
                why = f"The {what} '{name}' cannot be used: {each.why.rstrip('.')}."
                raise BadInput(why, "See `deepmine-auto plugins list`.")

    def get(self, kind: str, name: str) -> type[Any]:
        """The class of one plugin."""
        return self.brought(kind, name).thing  # type: ignore[no-any-return]

    def paths(self, kind: str) -> Iterator[tuple[str, Door]]:
        """The strings that the hooks of a kind return; nothing is imported but the doors."""
        for name, door in self.doors.items():
            caller = self.manager.subset_hook_caller(HOOKS[kind], self._others(name))
            returned = self._guarded(door, HOOKS[kind], partial(_listed, caller))
            yield from ((path, door) for path in returned or ())

    def _others(self, name: str) -> list[object]:
        return [self.manager.get_plugin(each) for each in self.doors if each != name]

    def _load(self, kind: str) -> dict[str, Brought]:
        found = [each for path, door in self.paths(kind) if (each := self._load_one(kind, path, door))]
        twice = {name for name, count in Counter(each.name for each in found).items() if count > 1}
        for name in sorted(twice):
            owners = " and ".join(f"{each.distribution} ({each.path})" for each in found if each.name == name)
            why = f"two plugins have this name: {owners}. Uninstall one, or list the other in DEEPMINE_AUTO_PLUGINS."
            self.broken.append(Broken(name, owners, why, kind))
        return {each.name: each for each in found if each.name not in twice}

    def _load_one(self, kind: str, path: str, door: Door) -> Brought | None:
        def load() -> Brought:
            thing = imported(path)
            why = _unfit_command(thing) if kind == "command" else unfit(kind, thing)
            if why:
                raise PluginError(why)
            source = getattr(thing, "source", "")
            code = "" if kind == "command" else hash_of(path.partition(":")[0])  # no study uses commands
            return Brought(kind, thing.name, thing, door.distribution, door.version, path, source, code)

        return self._guarded(door, path, load, kind)

    def _guarded(self, door: Door, what: str, work: Callable[[], T], kind: str = DOOR) -> T | None:
        try:
            return work()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # sys.exit and Rust panics in a plugin must not end the host either
            self.broken.append(Broken(what, door.distribution, _told(error), kind))
            return None


def _listed(caller: pluggy.HookCaller) -> list[str]:
    return [path for each in caller() for path in each]


def imported(path: str) -> Any:
    """Import `module:attribute`."""
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)


def unfit(kind: str, cls: Any) -> str:
    """Say why a class cannot be a plugin of this kind, or return an empty string."""
    base = KINDS[kind]
    if not (isinstance(cls, type) and issubclass(cls, base)):
        return f"{cls!r} is no subclass of {base.__name__}"
    own = vars(cls).get("__dataclass_params__")  # of a base it would not know the fields that the class adds
    if own is None or not own.frozen:
        return f"{cls.__name__} must be a frozen dataclass: write @dataclass(frozen=True, kw_only=True)"
    needed = ["name", "source", *(["caps"] if issubclass(cls, Attention) else [])]
    needed += ["touches"] if issubclass(cls, Technique) else []
    missing = [each for each in needed if not hasattr(cls, each)]
    if missing:
        return f"{cls.__name__} has no class attribute '{missing[0]}'"
    if not NAME.fullmatch(cls.name):
        return f"{cls.__name__} is called '{cls.name}': give it letters, digits, dots, dashes and underscores alone"
    return _wrong_signature(cls, base) or _default_outside(cls)


def _wrong_signature(cls: type, base: type[Plugin]) -> str:
    for name, method in inspect.getmembers(base, inspect.isfunction):
        ours, theirs = list(inspect.signature(method).parameters), _parameters(getattr(cls, name))
        if theirs is not None and theirs != ours:
            return f"{cls.__name__}.{name} takes ({', '.join(theirs)}), and must take ({', '.join(ours)})"
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        return f"{cls.__name__} has no method '{missing[0]}'"
    return ""


def _parameters(method: Any) -> list[str] | None:
    return list(inspect.signature(method).parameters) if inspect.isfunction(method) else None


def _default_outside(cls: type) -> str:
    from deepmine_auto.space import defaults, ranges

    for name, value in defaults(cls).items():
        if value not in ranges(cls)[name]:
            return f"{cls.__name__}.{name} is {value!r} by default, and its range is {ranges(cls)[name]}"
    return ""


def _unfit_command(thing: Any) -> str:
    import click

    return "" if isinstance(thing, click.Command) else f"{thing!r} is no click command"


def _told(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    if isinstance(error, pluggy.PluginValidationError):
        lines = [" ".join(lines)]  # the hook stands in the first line, and what is wrong with it further down
    first = lines[0] if lines else ""
    return first if isinstance(error, DeepmineError) else f"{type(error).__name__}: {first}".rstrip(": ")


# -- finding doors ---------------------------------------------------------------------------------------------------


def allowed() -> frozenset[str] | None:
    """The distributions that DEEPMINE_AUTO_PLUGINS admits beside ours; None where it is not set."""
    listed = os.environ.get("DEEPMINE_AUTO_PLUGINS")
    return None if listed is None else frozenset(canonicalize_name(each.strip()) for each in listed.split(",") if each)


def find_doors(installed: Iterable[Distribution] | None = None) -> tuple[list[Door], list[Broken]]:
    """Order the entry points by distribution and name, and set aside equal names and unmet ranges; imports nothing."""
    doors = sorted(
        _doors(distributions() if installed is None else installed), key=lambda d: (d.distribution, d.entry.name)
    )
    twice = {name for name, count in Counter(each.entry.name for each in doors).items() if count > 1}
    good, broken = [], []
    for door in doors:
        others = [str(each) for each in doors if each.entry.name == door.entry.name and each is not door]
        if door.entry.name in twice and canonicalize_name(door.distribution) != OURS:
            why = f"the entry point '{door.entry.name}' is also brought by {others[0]}"
        else:
            why = _out_of_range(door)
        if why:
            broken.append(Broken(door.entry.name, door.distribution, why))
        else:
            good.append(door)
    return good, broken


def _doors(installed: Iterable[Distribution]) -> Iterator[Door]:
    admitted, seen = allowed(), set()
    for each in installed:
        name = _name(each)
        if not name or (canonical := canonicalize_name(name)) in seen:
            continue  # the first on sys.path is the one that would be imported
        seen.add(canonical)
        if admitted is not None and canonical not in admitted | {OURS}:
            continue
        for entry in each.entry_points.select(group=hookspecs.PROJECT):
            yield Door(entry, name, each.version, tuple(each.requires or ()))


def _name(installed: Distribution) -> str:
    try:
        return installed.metadata["Name"] or ""
    except (TypeError, KeyError):  # pip leaves folders without metadata behind
        return ""


def _requirements(door: Door) -> Iterator[Requirement]:
    for each in door.requires:
        with suppress(InvalidRequirement):  # an old distribution's other needs are no business of ours
            yield Requirement(each)


def _out_of_range(door: Door) -> str:
    for each in _requirements(door):
        applies = each.marker is None or each.marker.evaluate({"extra": ""})
        if canonicalize_name(each.name) == OURS and each.specifier and applies:
            ours = version(OURS)
            if not each.specifier.contains(ours, prereleases=True):
                return f"it needs deepmine-auto{each.specifier}, and this is {ours}"
    return ""


def open_host(installed: Iterable[Distribution] | None = None) -> Host:
    """Import every door in its own guard, and set aside those with misspelt or mistyped hooks."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    doors, broken = find_doors(installed)
    host = Host(manager, {}, broken)
    for door in doors:
        host._guarded(door, door.entry.name, partial(_open, host, door))
    return host


def _open(host: Host, door: Door) -> None:
    start = time.monotonic()
    module = door.entry.load()
    name = str(door)
    try:
        host.manager.register(module, name)
        host.manager.check_pending()
    except pluggy.PluginValidationError:
        host.manager.unregister(name=name)  # pluggy keeps the hooks that came before the wrong one
        raise
    if time.monotonic() - start > SLOW_SECONDS:
        print(f"The plugin {name} took {time.monotonic() - start:.1f} s to import.", file=sys.stderr)
    host.doors[name] = door


@cache
def the_host() -> Host:
    """The host of this process."""
    return open_host()
