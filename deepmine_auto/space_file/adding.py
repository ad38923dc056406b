"""What a study adds to a search space file: what learns from what is given beside the rows, techniques that are asked
for, and the longest inputs that it may read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from deepmine_auto.contracts import Given, Task
from deepmine_auto.errors import BadInput
from deepmine_auto.host import Host
from deepmine_auto.space import plugin_from, ranges
from deepmine_auto.space_file.reading import DATA, SpaceFile

LEARNERS: Mapping[Given, str] = {"unlabelled": "pseudo_labels", "paraphrases": "paraphrases"}
"""What is searched for what a user gives beside the rows, where the space names nothing that learns from it."""

SPOKEN_GIVEN: Mapping[Given, str] = {"unlabelled": "rows without labels", "paraphrases": "other words for texts"}
"""What that is called in a sentence."""


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
