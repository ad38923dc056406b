"""Search space files: TOML that chooses plugins, narrows ranges, names recipes to try first, and sets a budget."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from deepmine_auto.admission import natural, unsuited, unusable
from deepmine_auto.contracts import Attention, Backbone, Given, Plugin, Task
from deepmine_auto.errors import BadInput, MissingExtra, unknown
from deepmine_auto.host import Host
from deepmine_auto.space import (
    Choice,
    Float,
    Name,
    Param,
    Range,
    Space,
    Value,
    defaults,
    join,
    plugin_from,
    ranges,
    usual_values,
)
from deepmine_auto.study.budget import Budget, seconds_of
from deepmine_auto.training.recipe import Recipe, WarmUp

SECTIONS = ("plugins", "budget", "ranges", "recipes")
LISTS = ("attention", "backbone", "tuning", "optimizer", "schedule", "technique")
DATA = "data/"
HYBRID = "hybrid"
"""The list of attention variants that may take some layers in place of the one that has most."""
SINGLE = ("sampler", "pruner")
LEARNERS: Mapping[Given, str] = {"unlabelled": "pseudo_labels", "paraphrases": "paraphrases"}
"""What is searched for what a user gives beside the rows, where the space names nothing that learns from it."""

SPOKEN_GIVEN: Mapping[Given, str] = {"unlabelled": "rows without labels", "paraphrases": "other words for texts"}
"""What that is called in a sentence."""


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


# -- what is given beside the rows -----------------------------------------------------------------------------------


def with_learners(file: SpaceFile, given: Collection[str], host: Host) -> SpaceFile:
    """A space file for a study that is given this beside its rows. Where no technique of it learns from something that
    is given, it searches one that does too, and tries its first recipe without and with that. Raises BadInput where a
    technique needs something that is not given."""
    named = {each: host.get("technique", each).learns_from for each in file.plugins.get("technique", ())}
    for each, needed in named.items():
        if needed is not None and needed not in given:
            raise BadInput(f"The technique '{each}' learns from {SPOKEN_GIVEN[needed]}.", f"Give --{needed} FILE.")
    for each, learner in LEARNERS.items():
        if each in given and each not in named.values():
            file = with_technique(file, learner)
    return file


def with_technique(file: SpaceFile, name: str, against: Collection[str] = ()) -> SpaceFile:
    """A file that searches a technique, and tries its first recipe without and with it. It is `against` others, which
    are searched too then, and not in that recipe."""
    use, off = f"technique/{name}/use", {f"technique/{each}/use": False for each in against}
    recipes = [{use: False, **each} for each in file.recipes]
    recipes[1:1] = [{**each, **off, use: True} for each in recipes[:1]]
    plugins = {**file.plugins, "technique": [*dict.fromkeys((*file.plugins.get("technique", ()), name))]}
    wishes = {param: wish for param, wish in file.ranges.items() if param not in off}
    return replace(file, plugins=plugins, ranges=wishes, recipes=recipes)


# -- what rows are measured by ----------------------------------------------------------------------------------------


def reading_longest(file: SpaceFile, task: type[Task]) -> Task:
    """The task with the longest inputs that a file asks for."""
    own = ranges(task).get("max_len")
    wish = file.ranges.get(f"{DATA}max_len")
    if isinstance(wish, dict):
        wish = wish.get("high", getattr(own, "high", None))
    values = wish if isinstance(wish, list) else [wish]
    # others are refused with the space
    within: list[int] = [each for each in values if own is not None and isinstance(each, int) and each in own]
    return plugin_from(task, {f"{DATA}max_len": max(within)} if within else {}, "data")


# -- narrowing what plugins declare ----------------------------------------------------------------------------------


def narrowed(
    params: Iterable[Param], wishes: Mapping[str, Any], where: str
) -> tuple[tuple[Param, ...], dict[str, Value]]:
    """Apply a file's `[ranges]`: `{low, high}` or a list narrows, a single value fixes. Raises BadInput."""
    kept, fixed = [], {}
    for param in params:
        wish = wishes.get(param.name)
        if wish is None:
            kept += [_known_range(param, where)] if getattr(param.range, "searched", True) else []
        elif isinstance(wish, list | dict):
            kept.append(Param(param.name, _narrow(param, wish, where), param.when))
        elif param.when and param.name.endswith(("/kind", "/use")):  # without its condition it would hold for all
            kept.append(Param(param.name, Choice(_inside(param, wish, where)), param.when))
        else:
            fixed[param.name] = _inside(param, wish, where)
    return tuple(kept), fixed


def _known_range(param: Param, where: str) -> Param:
    if isinstance(param.range, Name):
        raise BadInput(f"{where} does not say '{param.name}'.", f"Give {param.range}, in [ranges] or by its option.")
    return param


def _inside(param: Param, value: Any, where: str) -> Value:
    if isinstance(param.range, Float) and type(value) is int:
        value = float(value)
    if value not in param.range:
        raise BadInput(f"{where}: '{param.name}' is {value!r}.", f"It must be {param.range}.")
    return value  # type: ignore[no-any-return]


def _narrow(param: Param, wish: Any, where: str) -> Range:
    if isinstance(wish, list):
        if not wish:
            raise BadInput(f"{where}: the range of '{param.name}' is empty.", f"Give some of: {param.range}.")
        return Choice(*(_inside(param, each, where) for each in wish))
    if isinstance(param.range, Choice | Name):
        raise BadInput(f"{where}: '{param.name}' takes a list.", f"Give some of: {param.range}.")
    odd = set(wish) - {"low", "high"}
    if odd:
        raise BadInput(f"{where}: '{param.name}' has the unknown key '{min(odd)}'.", "Use low and high.")
    low = _inside(param, wish.get("low", param.range.low), where)
    high = _inside(param, wish.get("high", param.range.high), where)
    if low > high:  # type: ignore[operator]
        raise BadInput(f"{where}: the range of '{param.name}' is empty: {low} to {high}.", f"Give {param.range}.")
    return type(param.range)(**{**asdict(param.range), "low": low, "high": high})


# -- building a space ------------------------------------------------------------------------------------------------

Admit = Callable[[Mapping[str, type[Attention]], Collection[type[Backbone]]], dict[str, type[Attention]]]


def build_space(file: SpaceFile, host: Host, task: type[Task], admit: Admit) -> Space:
    """Join the ranges of the plugins that a file chooses (all where it names none), narrowed. Raises BadInput."""
    chosen = {kind: _chosen(file, host, kind) for kind in LISTS}
    chosen["technique"] = _usable(file, chosen["technique"], task)
    chosen["backbone"] = backbones = _backbones(file, host, task)  # type: ignore[assignment]
    chosen["attention"] = admit(chosen["attention"], backbones.values())  # type: ignore[assignment, arg-type]
    chosen[HYBRID] = _hybrid(file, host, backbones.values(), admit)  # type: ignore[assignment]
    _refuse_lacking(chosen)
    always = {"schedule": WarmUp, "training": Recipe, "data": task}
    params = join(chosen, always)
    file = _without_idle_words(file, backbones, task)
    file = _for_task(file, {each.name: each.range for each in params if each.name.startswith(DATA)})
    _refuse_unknown_params(file, params, host, always)
    _refuse_two_judging(file, chosen["technique"])
    kept, fixed = narrowed(params, file.ranges, file.where)
    _refuse_unsearched(file, params)
    usual = usual_values(chosen, always)
    # a recipe's learning rate is that of its tuning
    recipes = [each for each in file.recipes if each.get("tuning/kind") in (None, *chosen["tuning"])]
    return Space(kept, fixed, tuple(_recipe(each, usual, kept, fixed, file.where) for each in recipes))


def _without_idle_words(file: SpaceFile, backbones: Mapping[str, Any], task: type[Task]) -> SpaceFile:
    """The file with one value for what only says how a task cuts words, where pretrained models alone do that."""
    if not all(each.pretrained for each in backbones.values()):
        return file
    usual = {f"{DATA}{name}": value for name, value in defaults(task).items() if name in task.own_words}
    return replace(file, ranges={**usual, **file.ranges})


def _refuse_unsearched(file: SpaceFile, params: Iterable[Param]) -> None:
    """Raise BadInput where a recipe names what is searched only where a range is given, and there is none."""
    unsearched = {each.name for each in params if not getattr(each.range, "searched", True)} - {*file.ranges}
    for name in (each for recipe in file.recipes for each in recipe if each in unsearched):
        what = f"{file.where}: a recipe sets '{name}', which is searched only where [ranges] names it."
        raise BadInput(what, "Give its values there too.")


def _refuse_two_judging(file: SpaceFile, techniques: Mapping[str, Any]) -> None:
    """Raise BadInput where a file wants two of the techniques that say which weights are judged."""
    uses = {f"technique/{name}/use": name for name, each in techniques.items() if "judged" in each.touches}
    for values in (file.ranges, *({**file.ranges, **recipe} for recipe in file.recipes)):
        wanted = [name for use, name in uses.items() if values.get(use) is True]
        if len(wanted) > 1:
            what = f"{' and '.join(wanted)} would both put other weights in the place of those that were trained"
            raise BadInput(f"{file.where}: {what}.", "Use one of them.")


def _chosen(file: SpaceFile, host: Host, kind: str) -> dict[str, type[Plugin]]:
    names = file.plugins.get(kind) or ([] if kind == "technique" else sorted(host.offered(kind)))
    return {name: host.get(kind, name) for name in names}


def _refuse_lacking(chosen: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise MissingExtra where a tuning of a pretrained model needs a library that is not installed."""
    if not any(each.pretrained for each in chosen["backbone"].values()):
        return
    for name, each in chosen["tuning"].items():
        if each.needs and find_spec(each.needs) is None:
            raise MissingExtra(f"The tuning '{name}' needs {each.needs}.", 'pip install "deepmine-auto[pretrained]"')


def _for_task(file: SpaceFile, own: Mapping[str, Range]) -> SpaceFile:
    """A space of ours without what this task, whose params these are, does not take."""
    if not file.ours:
        return file
    fitting = ((name, _fitting(name, wish, own)) for name, wish in file.ranges.items())
    recipes = [{name: each for name, each in recipe.items() if _fits(name, each, own)} for recipe in file.recipes]
    return replace(file, ranges={name: wish for name, wish in fitting if wish not in (None, [])}, recipes=recipes)


def _fitting(name: str, wish: Any, own: Mapping[str, Range]) -> Any:
    if isinstance(wish, list):
        return [each for each in wish if _fits(name, each, own)]
    return wish if (isinstance(wish, dict) and name in own) or _fits(name, wish, own) else None


def _fits(name: str, value: Any, own: Mapping[str, Range]) -> bool:
    return not name.startswith(DATA) or (name in own and value in own[name])


def _hybrid(
    file: SpaceFile, host: Host, backbones: Collection[type[Backbone]], admit: Admit
) -> dict[str, type[Attention]]:
    names = file.plugins.get(HYBRID) or ()
    return admit({name: host.get("attention", name) for name in names}, backbones) if names else {}


def _backbones(file: SpaceFile, host: Host, task: type[Task]) -> dict[str, type[Backbone]]:
    """The backbones that a file names, or those that are natural for the task. Raises BadInput for one that is not
    for this task."""
    offered = {name: each.thing for name, each in host.offered("backbone").items()}
    found = {name: host.get("backbone", name) for name in file.plugins.get("backbone") or natural(offered, task)}
    for each in found.values():
        if why := unsuited(each, task):
            raise BadInput(f"{file.where}: {why}.", f"Choose among {', '.join(natural(offered, task))}.")
    return found


def _usable(file: SpaceFile, techniques: Mapping[str, Any], task: type[Task]) -> dict[str, type[Plugin]]:
    """The techniques that can change the training of a task; one that cannot is left out of a space of ours, which is
    for many tasks. Raises BadInput where a user names it."""
    reasons = {name: why for name, each in techniques.items() if (why := unusable(each, task))}
    for name, why in reasons.items():
        if not file.ours:
            raise BadInput(f"{file.where}: {why}.", f"Leave {name} out.")
    return {name: each for name, each in techniques.items() if name not in reasons}


def _refuse_unknown_params(file: SpaceFile, params: Sequence[Param], host: Host, always: Mapping[str, type]) -> None:
    known = {each.name for each in params}
    strange = {*file.ranges, *(key for recipe in file.recipes for key in recipe)} - known
    if not strange:
        return
    everything = {kind: {name: each.thing for name, each in host.offered(kind).items()} for kind in LISTS}
    everything[HYBRID] = everything["attention"]
    known |= {each.name for each in join(everything, always)}  # a plugin that is only not chosen here is no error
    for key in sorted(strange - known):
        error = unknown(key, known, "param")
        raise BadInput(f"{file.where}: {error.what}", error.remedy)


def _recipe(
    recipe: Mapping[str, Any],
    usual: Mapping[str, Value],
    params: Sequence[Param],
    fixed: Mapping[str, Any],
    where: str,
) -> dict[str, Any]:
    """The values of a recipe that exist in this space. What it does not name is as usual, and a plugin is used where
    it names something of that; a kind that was not chosen, or is not named, is left to the sampler.

    Raises BadInput for any other value outside its range.
    """
    kept: dict[str, Any] = {}
    for param in params:
        value = recipe.get(param.name, _unnamed(param, usual, recipe))
        if value is None or not param.active({**fixed, **kept}):
            continue
        if value in param.range:
            kept[param.name] = value
        elif not param.name.endswith("/kind"):
            raise BadInput(f"{where}: a recipe sets '{param.name}' to {value!r}.", f"It must be {param.range}.")
    return kept


def _unnamed(param: Param, usual: Mapping[str, Value], recipe: Mapping[str, Any]) -> Value | None:
    """What a param is that a recipe does not name: all that it can be, or what is usual, or None."""
    if isinstance(param.range, Choice) and len(param.range.options) == 1:
        return param.range.options[0]
    plugin, _, last = param.name.rpartition("/")
    named = any(each.startswith(f"{plugin}/") for each in recipe)
    value = named if last == "use" else usual.get(param.name)
    return value if value in param.range else None
