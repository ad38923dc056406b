"""The search space that a file asks for: its plugins, their ranges, and the recipes that are tried first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from deepmine_auto.admission import natural, unsuited, unusable
from deepmine_auto.contracts import Attention, Backbone, Plugin, Task
from deepmine_auto.errors import BadInput, MissingExtra, unknown
from deepmine_auto.host import Host
from deepmine_auto.space import Choice, Param, Range, Space, Value, defaults, join, usual_values
from deepmine_auto.space_file.narrowing import narrowed
from deepmine_auto.space_file.reading import DATA, HYBRID, LISTS, SpaceFile
from deepmine_auto.training.recipe import Recipe, WarmUp

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
