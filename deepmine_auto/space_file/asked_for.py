"""A search space with what a user asks for: variants and tunings in the place of its own, techniques beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from deepmine_auto.admission import unusable, wordless
from deepmine_auto.contracts import Task, Tuning
from deepmine_auto.errors import BadInput
from deepmine_auto.host import Host
from deepmine_auto.space_file.adding import with_technique
from deepmine_auto.space_file.reading import SpaceFile

KIND, RATE = "tuning/kind", "optimizer/adamw/lr"


class Asked(Protocol):
    """Names, one or several of each; none leaves the space as it is."""

    @property
    def attention(self) -> Sequence[str] | str:
        """Attention variants to choose from instead."""

    @property
    def tuning(self) -> Sequence[str] | str:
        """Tunings of a pretrained model to choose from instead."""

    @property
    def technique(self) -> Sequence[str] | str:
        """Techniques to search too."""


def listed(given: Sequence[str] | str) -> list[str]:
    """Several texts, of which one may be given as it is."""
    return [given] if isinstance(given, str) else list(given)


def asked_for(file: SpaceFile, asked: Asked, task: type[Task], host: Host) -> SpaceFile:
    """The file with what is asked for. Raises BadInput for what there is not, or what cannot train the task."""
    if attention := listed(asked.attention):
        file = replace(file, plugins={**file.plugins, "attention": attention})
    if tuning := listed(asked.tuning):
        file = _with_tunings(file, {name: host.get("tuning", name) for name in tuning})
    for name in reversed(listed(asked.technique)):  # each is put before those that were
        if why := unusable(host.get("technique", name), task):
            raise BadInput(f"{why}.", f"Leave {name} out.")
        file = with_technique(file, name, _against(name, file.plugins.get("technique", ()), host))
    return file


def _against(name: str, others: Sequence[str], host: Host) -> list[str]:
    """The other techniques that say which weights are judged, if this one does: one may at a time."""
    judging = {each for each in (name, *others) if "judged" in host.get("technique", each).touches}
    return sorted(judging - {name}) if name in judging else []


def refuse_idle(file: SpaceFile, asked: Asked, host: Host) -> None:
    """Raise BadInput where tunings or techniques are asked for that change nothing of the backbones of a file."""
    backbones = [host.get("backbone", each) for each in file.plugins.get("backbone") or ()]
    if listed(asked.tuning) and not any(each.pretrained for each in backbones):
        raise BadInput("A tuning says what of a pretrained model learns, and there is none.", "Give --backbone MODEL.")
    for name in listed(asked.technique):
        if why := wordless(host.get("technique", name), backbones):
            raise BadInput(f"{why}.", f"Leave {name} out.")


def _with_tunings(file: SpaceFile, tunings: Mapping[str, type[Tuning]]) -> SpaceFile:
    """The file with these tunings. Of its recipes those of them are left; any other tuning is tried first as the first
    recipe, at the learning rate that suits it."""
    known = [each for each in file.recipes if each.get(KIND) in tunings]
    others = tunings.keys() - {each[KIND] for each in known}
    begun = [
        {**first, KIND: name, **_rate(file, each)}
        for name, each in tunings.items()
        for first in file.recipes[:1]
        if name in others
    ]
    plugins = {**file.plugins, "tuning": [*tunings]}
    return replace(file, plugins=plugins, ranges=_wide_enough(file, tunings), recipes=[*known, *begun])


def _rate(file: SpaceFile, tuning: type[Tuning]) -> dict[str, float]:
    """The learning rate of a recipe, unless the file says which there are."""
    wish = file.ranges.get(RATE, {})
    return {RATE: max(tuning.rate, wish.get("low", tuning.rate))} if isinstance(wish, Mapping) else {}


def _wide_enough(file: SpaceFile, tunings: Mapping[str, type[Tuning]]) -> dict[str, Any]:
    """The ranges of a file, in which the learning rate may be as large as each of these tunings wants it."""
    wish = file.ranges.get(RATE)
    if not isinstance(wish, Mapping) or "high" not in wish:
        return {**file.ranges}
    high = max(wish["high"], *(each.rate for each in tunings.values()))
    return {**file.ranges, RATE: {**wish, "high": high}}
