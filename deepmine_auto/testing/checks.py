"""Run the promises of a plugin outside pytest, for `deepmine-auto plugins check`."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from deepmine_auto.contracts import KINDS, Plugin
from deepmine_auto.errors import BadInput, MissingExtra

KITS = {
    "Attention": ("deepmine_auto.testing.attention:AttentionPromises", "variant"),
    "Task": ("deepmine_auto.testing.task:TaskPromises", "task"),
    "TextClassification": ("deepmine_auto.testing.task:ClassificationPromises", "task"),
    "Optimizer": ("deepmine_auto.testing.optimizer:OptimizerPromises", "optimizer"),
    "Schedule": ("deepmine_auto.testing.schedule:SchedulePromises", "schedule"),
    "Tuning": ("deepmine_auto.testing.tuning:TuningPromises", "tuning"),
    "Technique": ("deepmine_auto.testing.technique:TechniquePromises", "technique"),
}
"""The promises of what extends each of our classes, and the attribute that names the plugin."""

CHECKED = tuple(kind for kind, contract in KINDS.items() if contract.__name__ in KITS)
"""The kinds of plugins for which there are promises."""


class Promise(NamedTuple):
    """One promise in words; whether it holds, or None where the plugin does not give it; why."""

    promise: str
    ok: bool | None
    detail: str = ""


def check(plugin: type[Plugin]) -> list[Promise]:
    """Hold a plugin to all promises of its kind. Raises BadInput where there are none, MissingExtra without pytest."""
    return list(run(kit_of(plugin)))


def kit_of(plugin: type[Plugin]) -> type[Any]:
    """The promises of the plugin's nearest base, about this plugin."""
    ours = (each.__name__ for each in plugin.__mro__ if each.__module__.startswith("deepmine_auto."))
    base = next((name for name in ours if name in KITS), None)
    if base is None:
        raise BadInput(f"There are no promises for '{plugin.__name__}'.", f"There are for: {', '.join(KITS)}.")
    path, attribute = KITS[base]
    module, _, name = path.partition(":")
    try:
        kit = getattr(import_module(module), name)
    except ModuleNotFoundError as missing:
        if missing.name not in ("pytest", "hypothesis"):
            raise
        raise MissingExtra(f"Checking a plugin needs {missing.name}.", "pip install 'deepmine-auto[test]'") from missing
    return type(f"Check{plugin.__name__}", (kit,), {attribute: plugin})


def run(kit: type[Any]) -> Iterator[Promise]:
    """Run each test method of a kit, in the order in which they are written."""
    names = {name: None for each in reversed(kit.__mro__) for name in vars(each) if name.startswith("test_")}
    for name in names:
        yield held(name.removeprefix("test_").replace("_", " "), getattr(kit(), name))


def held(promise: str, test: Callable[..., None]) -> Promise:
    """Run one test; `tmp_path` is the only fixture it may ask for."""
    import pytest

    with tempfile.TemporaryDirectory() as folder:
        fixtures = {"tmp_path": Path(folder)}
        asked = [name for name in inspect.signature(test).parameters if name not in fixtures]
        if asked:
            return Promise(promise, None, f"needs the fixture '{asked[0]}': run it under pytest")
        try:
            test(**{name: fixtures[name] for name in inspect.signature(test).parameters})
        except pytest.skip.Exception as skipped:
            return Promise(promise, None, str(skipped))
        except (Exception, pytest.fail.Exception) as broken:
            return Promise(promise, False, _told(broken))
    return Promise(promise, True)


def _told(broken: BaseException) -> str:
    first = str(broken).strip().splitlines()[:1] or [type(broken).__name__]
    notes = [each.splitlines()[0] for each in getattr(broken, "__notes__", ()) if each.startswith("Draw ")]
    return "; ".join([*first, *notes])
