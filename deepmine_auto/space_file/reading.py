"""Search space files: TOML that chooses plugins, narrows ranges, names recipes to try first, and sets a budget."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from deepmine_auto.contracts import Task
from deepmine_auto.errors import BadInput, unknown
from deepmine_auto.study.budget import Budget, seconds_of

SECTIONS = ("plugins", "budget", "ranges", "recipes")
LISTS = ("attention", "backbone", "tuning", "optimizer", "schedule", "technique")
DATA = "data/"
HYBRID = "hybrid"
"""The list of attention variants that may take some layers in place of the one that has most."""
SINGLE = ("sampler", "pruner")


@dataclass(frozen=True)
class SpaceFile:
    """What a file says; `where` names it in errors. Those that come with the program are for many tasks."""

    where: str
    plugins: Mapping[str, Sequence[str]]
    ours: bool = False
    sampler: str = "tpe"
    pruner: str = "asha"
    budget: Budget = field(default_factory=Budget)
    ranges: Mapping[str, Any] = field(default_factory=dict)
    recipes: Sequence[Mapping[str, Any]] = ()

    @property
    def name(self) -> str:
        """What `read_space` finds it by from anywhere."""
        return self.where if self.ours else str(Path(self.where).absolute())


def bundled() -> list[str]:
    """The names of the spaces that come with the program."""
    names = (each.name for each in files("deepmine_search_spaces").iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def space_for(task: type[Task]) -> str:
    """The bundled space of a task: the one that it names, that of its name, or the one for all tasks."""
    return next((each for each in (task.space, task.name) if each in bundled()), "default")


def read_space(name: str) -> SpaceFile:
    """Read a bundled space by name, or a file. Raises BadInput naming the file, the key, and the nearest right one."""
    if name in bundled():
        text = (files("deepmine_search_spaces") / f"{name}.toml").read_text()
        return _read(text, f"{name}.toml", ours=True)
    file = Path(name).expanduser()
    if not file.is_file():
        if file.suffix == ".toml":
            raise BadInput(f"There is no search space file {file}.", "Check the path.")
        raise unknown(name, bundled(), "search space", "Or give a TOML file.")
    try:
        return _read(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} cannot be read: {error}.", "A search space is a TOML file in UTF-8.") from error


def _read(text: str, where: str, *, ours: bool = False) -> SpaceFile:
    try:
        plain = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{where} is no TOML: {error}.", "Correct that place.") from error
    _known(plain, SECTIONS, where, "section")
    plugins, budget = _table(plain, "plugins", where), _table(plain, "budget", where)
    _known(plugins, (*LISTS, HYBRID, *SINGLE), f"{where} [plugins]", "kind of plugin")
    _known(budget, ("trials", "time"), f"{where} [budget]", "limit")
    lists = {kind: _names(plugins.get(kind, []), f"{where}: '{kind}'") for kind in (*LISTS, HYBRID)}
    singles = {kind: _name(plugins[kind], f"{where}: '{kind}'") for kind in SINGLE if kind in plugins}
    recipes = plain.get("recipes", [])
    if not isinstance(recipes, list) or not all(isinstance(each, dict) for each in recipes):
        raise BadInput(f"{where}: 'recipes' is no list of tables.", "Write [[recipes]] above each.")
    return SpaceFile(
        where, lists, ours, **singles, budget=_budget(budget, where), ranges=_ranges(plain, where), recipes=recipes
    )


def _known(plain: Mapping[str, Any], known: Iterable[str], where: str, what: str) -> None:
    for key in plain:
        if key not in known:
            error = unknown(key, known, what)
            raise BadInput(f"{where}: {error.what}", error.remedy)


def _table(plain: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    table = plain.get(key, {})
    if not isinstance(table, dict):
        raise BadInput(f"{where}: '{key}' is no table.", f"Write [{key}] on a line of its own.")
    return table


def _names(value: Any, where: str) -> Sequence[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise BadInput(f"{where} is {value!r}.", "It must be a list of names.")
    return value


def _name(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise BadInput(f"{where} is {value!r}.", "It must be a name.")
    return value


def _budget(plain: Mapping[str, Any], where: str) -> Budget:
    trials, time = plain.get("trials"), plain.get("time")
    if trials is not None and type(trials) is not int:
        raise BadInput(f"{where}: 'trials' is {trials!r}.", "It must be a whole number.")
    return Budget(trials, None if time is None else seconds_of(str(time)))


def _ranges(plain: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Accept `"model/depth" = ...` and the nested `[ranges.model] depth = ...` alike."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, table: Mapping[str, Any]) -> None:
        for key, value in table.items():
            if isinstance(value, dict) and not {"low", "high"} & set(value):
                walk(f"{prefix}{key}/", value)
            else:
                flat[f"{prefix}{key}"] = value

    walk("", _table(plain, "ranges", where))
    return flat
