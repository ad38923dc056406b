"""The source files that a plugin is made of: its own, and those of its package that these import. None is run."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path


def hash_of(module: str) -> str:
    """The sha256 of the files of a plugin's module, which a study records; empty where they cannot be read."""
    try:
        return hashlib.sha256(b"".join(each.read_bytes() for each in files_of(module))).hexdigest()
    except (OSError, ImportError, SyntaxError):
        return ""


def files_of(module: str) -> list[Path]:
    """The file of an imported module and, in the order of their names, those of its package that it imports, and so on.
    Raises FileNotFoundError where it has none."""
    return [*_with_siblings(module, {}).values()]


def _with_siblings(module: str, found: dict[str, Path]) -> dict[str, Path]:
    file = _file_of(module)
    if file is None:
        raise FileNotFoundError(module)
    found[module] = file
    for each in sorted(set(_imported(module, file))):
        if each not in found and each.partition(".")[0] == module.partition(".")[0] and _file_of(each):
            _with_siblings(each, found)
    return found


def _imported(module: str, file: Path) -> Iterator[str]:
    """What may be modules of what a file imports, wherever in it: what is found does not depend on what has run."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            yield from (base, *(f"{base}.{each.name}" for each in node.names))


def _file_of(module: str) -> Path | None:
    """The source file of a module whose top package is imported. A search by specs would import what is between."""
    top, *rest = module.split(".")
    package = sys.modules.get(top)
    places = [Path(folder, *rest) for folder in getattr(package, "__path__", ())]
    files = [file for place in places for file in (place / "__init__.py", place.with_suffix(".py"))]
    files += [Path(str(getattr(package, "__file__", None)))] if not rest else []
    return next((file for file in files if file.is_file()), None)
