"""What a user means by --backbone: backbones by their names, or models that others trained."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from deepmine_auto.contracts import Attention, Backbone
from deepmine_auto.errors import BadInput, unknown
from deepmine_auto.host import Host
from deepmine_auto.pretrained.files import content_of, folder_of, original_of, pinned, weights_of
from deepmine_auto.pretrained.trust import ORIGIN
from deepmine_auto.space import Choice, Space, Value, plugin_from, ranges
from deepmine_auto.space_file.reading import HYBRID, SpaceFile

SPACE, SOFTMAX = "pretrained", "multi_head"
WHERE = f"{SPACE}.toml"
"""The bundled space for them, which has the name of their backbone, and what it is called in errors."""

ALIKE = 0.7
"""How alike a name and that of a backbone are where it is a slip: encodr is, and no well-known model of the hub."""


class Chosen(NamedTuple):
    """Backbones by name, and pretrained models, whose backbone is then one of the first."""

    names: tuple[str, ...]
    origins: tuple[str, ...]

    @property
    def space(self) -> str:
        """The bundled space that suits the choice; empty where it is the task's own."""
        return SPACE if self.origins else ""

    def over(self, file: SpaceFile, host: Host) -> SpaceFile:
        """A space file with this choice in the place of its own; the bundled one for pretrained models knows what to
        do where other attention is asked for than they have. Raises BadInput for one that there is not."""
        if not self.names:
            return file
        origins = {ORIGIN: self.origins[0] if len(self.origins) == 1 else [*self.origins]} if self.origins else {}
        chosen = replace(file, plugins={**file.plugins, "backbone": self.names}, ranges={**file.ranges, **origins})
        if not self.origins or file.where != WHERE:
            return chosen
        chosen = replace(chosen, recipes=self._for_each(file.recipes))
        return _operating(chosen, host) if {*file.plugins["attention"]} != {SOFTMAX} else chosen

    def _for_each(self, recipes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The recipes of pretrained models, each for all of these."""
        models = [{"model/kind": SPACE, ORIGIN: each} for each in self.origins]
        return [{**model, **each} for each in recipes for model in models]


def _operating(file: SpaceFile, host: Host) -> SpaceFile:
    """Search healing and placement too, begin what is learned where it changes nothing, and try the recipes as they
    were published, with softmax."""
    asked: dict[str, type[Attention]] = {name: host.get("attention", name) for name in file.plugins["attention"]}
    plain = {"attention/kind": SOFTMAX} if SOFTMAX in asked else {}
    techniques = dict.fromkeys((*file.plugins["technique"], "healing"))
    plugins = {**file.plugins, "technique": (*techniques,), HYBRID: (SOFTMAX,)}
    begun = {key: value for name, each in asked.items() for key, value in _neutral(name, each)}
    recipes = [{**plain, **each} for each in file.recipes]
    return replace(file, plugins=plugins, ranges={**begun, **file.ranges}, recipes=recipes)


def _neutral(name: str, variant: type[Attention]) -> Iterator[tuple[str, Value]]:
    """The fields of a variant, and their values, with which it says at first what a pretrained model said before."""
    if variant.caps.fit == "exact":
        own = ranges(variant)
        yield from (
            (f"attention/{name}/{field}", value)
            for field, value in (variant.neutral or {}).items()
            if field in own and value in own[field]
        )


def chosen_from(asked: Sequence[str], host: Host) -> Chosen:
    """Tell names from models, and look at each of the latter. Raises BadInput where one cannot be used."""
    known = host.offered("backbone")
    names = [each for each in asked if each in known]
    models = [each for each in asked if each not in known]
    for each in models:
        _refuse_misspelt(each, known)
    origins = [pinned(each) for each in models]
    for each in origins:
        original_of(each)
        weights_of(folder_of(each))
    also = ["pretrained"] if origins and "pretrained" not in names else []
    return Chosen((*names, *also), tuple(origins))


def _refuse_misspelt(name: str, known: Collection[str]) -> None:
    """Refuse the name of a backbone with a slip in it, which the hub would be asked for. Raises BadInput."""
    of_hub = "/" in name or "@" in name or Path(name).expanduser().is_dir()
    if not of_hub and get_close_matches(name, known, n=1, cutoff=ALIKE):
        raise unknown(name, known, "backbone", f"A model of the hub may be given as {name}@main.")


def origins_of(space: Space) -> list[str]:
    """The pretrained models that a space may draw."""
    return options_of(space, ORIGIN)


def chosen_in(space: Space) -> Chosen:
    """The choice of backbones that a space was built with."""
    return Chosen(tuple(options_of(space, "model/kind")), tuple(origins_of(space)))


def options_of(space: Space, name: str) -> list[str]:
    """What a space may draw for a param, or the one that it fixes."""
    fixed = [space.fixed[name]] if name in space.fixed else []
    drawn = [each.range.options for each in space.params if each.name == name and isinstance(each.range, Choice)]
    return [str(each) for each in (drawn[0] if drawn else fixed)]


def contents_of(space: Space) -> dict[str, str]:
    """What the folders of pretrained models hold, as a sha256 each. A commit of the hub is what its name says."""
    return {each: content_of(Path(each)) for each in origins_of(space) if Path(each).is_dir()}


def kept_origins(file: SpaceFile, space: Space) -> SpaceFile:
    """A space file with the pretrained models that a study has, unless it names its own."""
    known = origins_of(space)
    return replace(file, ranges={ORIGIN: known[0] if len(known) == 1 else known, **file.ranges}) if known else file


def longest_reader(file: SpaceFile, host: Host) -> Backbone:
    """A backbone of a space file that stands for all of them where rows are measured in tokens: a pretrained one, which
    cuts words into pieces, where there is one. Raises BadInput where the file does not say which model."""
    names = file.plugins.get("backbone") or sorted(host.offered("backbone"))
    classes: list[type[Backbone]] = [host.get("backbone", name) for name in names]
    found = next((each for each in classes if each.pretrained and file.plugins.get("backbone")), classes[0])
    origins = named_in(file, host)
    if found.pretrained and not origins:
        raise BadInput(f"{file.where} does not say '{ORIGIN}'.", "Give --backbone the folder of a model.")
    return plugin_from(found, {ORIGIN: origins[0]} if origins else {}, f"model/{found.name}")


def named_in(file: SpaceFile, host: Host) -> list[str]:
    """The pretrained models that a space file names and has a backbone for."""
    if not any(host.get("backbone", each).pretrained for each in file.plugins.get("backbone") or ()):
        return []
    origins = file.ranges.get(ORIGIN, [])
    return [each for each in (origins if isinstance(origins, list) else [origins]) if isinstance(each, str)]
