"""The source files that a plugin is made of: its own, and those of its package that it takes something from."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any


def hash_of(thing: Any) -> str:
    """The sha256 of the files of a plugin, which a study records; empty where there is no file."""
    modules = _with_siblings(_module_of(thing), {})
    files = [file for each in modules.values() if (file := getattr(each, "__file__", None))]
    try:
        return hashlib.sha256(b"".join(Path(each).read_bytes() for each in files)).hexdigest() if files else ""
    except OSError:
        return ""


def _module_of(thing: Any) -> ModuleType | None:
    return thing if inspect.ismodule(thing) else sys.modules.get(getattr(thing, "__module__", None) or "")


def _with_siblings(module: ModuleType | None, found: dict[str, ModuleType]) -> dict[str, ModuleType]:
    """A module and, in the order of their names, those of its package that it took something from, and so on."""
    if module is not None and module.__name__ not in found:
        found[module.__name__] = module
        for each in _siblings(module):
            _with_siblings(each, found)
    return found


def _siblings(module: ModuleType) -> Iterator[ModuleType]:
    package = module.__name__.partition(".")[0]
    taken = {each.__name__: each for value in vars(module).values() if (each := _module_of(value))}
    yield from (taken[name] for name in sorted(taken) if name.partition(".")[0] == package)
