"""What cannot change how the pretrained models of a search train, found out before a study is written: techniques,
tunings, and options of these."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from deepmine_auto.admission import wordless
from deepmine_auto.contracts import Tuning
from deepmine_auto.errors import BadInput
from deepmine_auto.host import Host
from deepmine_auto.pretrained.parts import blocks_of
from deepmine_auto.space import Choice, Int, Value, plugin_from, ranges
from deepmine_auto.space_file.reading import SpaceFile

if TYPE_CHECKING:
    from deepmine_auto.pretrained.skeleton import Skeleton


def left_of(options: Sequence[Any], wish: Any) -> Sequence[Any]:
    """What the range that a file gives leaves of some options; one that holds others is refused with the space."""
    asked = wish if isinstance(wish, list) else [wish]
    return asked if asked and all(each in options for each in asked) else options


def fixed_by(file: SpaceFile) -> dict[str, Value]:
    """The params of which a file leaves one value."""
    return {name: each for name, each in file.ranges.items() if not isinstance(each, list | dict)}


def refusal_of(work: Callable[[], object]) -> BadInput | None:
    """Why something is refused, or None. A plugin may have a fault, or want to see numbers where there are none; what
    becomes of that its trials tell."""
    try:
        work()
    except BadInput as refused:
        return refused
    except Exception:
        return None
    return None


# -- techniques --------------------------------------------------------------------------------------------------------


def without_wordless(file: SpaceFile, left_out: list[str], host: Host) -> SpaceFile:
    """The file without techniques that need vectors of words; adds why. Raises BadInput where one is fixed on."""
    backbones = [host.get("backbone", each) for each in file.plugins.get("backbone") or ()]
    names = file.plugins.get("technique") or ()
    reasons = {name: why for name in names if (why := wordless(host.get("technique", name), backbones))}
    for name, why in reasons.items():
        if file.ranges.get(f"technique/{name}/use") in (True, [True]):
            raise BadInput(f"{file.where}: {why}.", f"Leave {name} out.")
        left_out.append(f"left out: {why}")
    return replace(file, plugins={**file.plugins, "technique": [each for each in names if each not in reasons]})


# -- tunings -----------------------------------------------------------------------------------------------------------


class _Tried(NamedTuple):
    """A tuning with these params, and the first model that refuses it, with the reason."""

    params: Mapping[str, Value]
    model: str
    why: BadInput | None


def tunings_of(file: SpaceFile, host: Host) -> dict[str, type[Tuning]]:
    """The tunings that a file searches."""
    names = file.plugins.get("tuning") or sorted(host.offered("tuning"))
    return {name: host.get("tuning", name) for name in left_of(names, file.ranges.get("tuning/kind"))}


def suited(file: SpaceFile, models: Sequence[Skeleton], left_out: list[str], host: Host) -> SpaceFile:
    """The file without tunings that find nothing to change in one of these models, and without such options of them,
    and recipes with these; adds why. Raises BadInput where no tuning is left."""
    tunings = tunings_of(file, host)
    tried = {name: _tried(file, name, each, models) for name, each in tunings.items()}
    left = {name: tunings[name] for name, ways in tried.items() if not all(way.why for way in ways)}
    if not left:
        raise next(way.why for ways in tried.values() for way in ways if way.why)
    left_out.extend(note for name, ways in tried.items() for note in _notes(name, ways))
    options = {param: each for name in left for param, each in _options(tried[name])}
    recipes = [each for each in file.recipes if _agrees(each, options)]
    plugins, wishes = {**file.plugins, "tuning": [*left]}, {**_counted(models, left), **file.ranges, **options}
    return replace(file, plugins=plugins, ranges=wishes, recipes=recipes)


def _tried(file: SpaceFile, name: str, tuning: type[Tuning], models: Sequence[Skeleton]) -> list[_Tried]:
    """A tuning with each choice of what it calls by a name, such as its targets, which a model may lack. All else is a
    matter of size, and as the file fixes it or by default."""
    prefix, found = f"tuning/{name}", []
    for params in _named(file, prefix, tuning):
        apply = plugin_from(tuning, {**fixed_by(file), **params}, prefix).apply
        refused = ((model.name, why) for model in models if (why := model.refusal(apply)))
        found.append(_Tried(params, *next(refused, ("", None))))
    return found


def _named(file: SpaceFile, prefix: str, tuning: type[Tuning]) -> Iterator[dict[str, Value]]:
    options = {f"{prefix}/{field}": each.options for field, each in ranges(tuning).items() if isinstance(each, Choice)}
    texts = {param: each for param, each in options.items() if all(isinstance(option, str) for option in each)}
    left = {param: left_of(each, file.ranges.get(param)) for param, each in texts.items()}
    return (dict(zip(left, each, strict=True)) for each in product(*left.values()))


def _notes(name: str, ways: Sequence[_Tried]) -> Iterator[str]:
    """What is left out of a tuning, all of it or some ways, and why."""
    refused = [way for way in ways if way.why]
    for way in refused if len(refused) < len(ways) else [refused[-1]._replace(params={})]:
        chosen = "".join(f" with {param.rpartition('/')[2]} = {value}" for param, value in way.params.items())
        yield f"left out: {name}{chosen} does not suit {way.model}: {cast(BadInput, way.why).what}"


def _options(ways: Sequence[_Tried]) -> Iterator[tuple[str, list[Value]]]:
    """The options that are left of params, where some are not."""
    for param in ways[0].params:
        options = dict.fromkeys(way.params[param] for way in ways)
        left = dict.fromkeys(way.params[param] for way in ways if not way.why)
        if len(left) < len(options):
            yield param, [*left]


def _agrees(recipe: Mapping[str, Any], options: Mapping[str, list[Value]]) -> bool:
    return all(recipe.get(param, left[0]) in left for param, left in options.items())


def _counted(models: Sequence[Skeleton], tunings: Mapping[str, type[Tuning]]) -> dict[str, Any]:
    """Ranges of the fields that count blocks, up to as many as the deepest of the models has."""
    found = {}
    for name, each in tunings.items():
        if each.counts:
            own = cast(Int, ranges(each)[each.counts])
            deepest = max(len(blocks_of(model.stack.model)) for model in models)
            found[f"tuning/{name}/{each.counts}"] = {"low": own.low, "high": min(deepest, own.high)}
    return found
