"""The house is built as it is drawn: who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_origin

import pytest

import deepmine_auto
from deepmine_auto import contracts

HEAVY = ("torch", "transformers", "ray", "optuna", "sklearn", "pandas", "pyarrow", "sqlalchemy")


def imports_of(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def names_from_us(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "deepmine_auto":
            yield from (each.name for each in node.names)


def python_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint('\\n'.join({{each.split('.')[0] for each in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_core_imports_no_plugin(checkout: Path) -> None:
    named = {str(file) for file in python_files(checkout / "deepmine_auto") for each in imports_of(file)
             if each.split(".")[0] in ("deepmine_plugins", "plugins")}  # fmt: skip
    assert named == set()


def test_the_core_names_no_plugin_package_in_strings(checkout: Path) -> None:
    files = python_files(checkout / "deepmine_auto")
    assert [str(file) for file in files if "deepmine_plugins." in file.read_text()] == []


@pytest.mark.parametrize("folder", ["plugins", "examples"])
def test_a_plugin_imports_only_public_names_of_ours(checkout: Path, folder: str) -> None:
    files = [each for each in python_files(checkout / folder) if "tests" not in each.parts]
    deeper = {(str(file), each) for file in files for each in imports_of(file) if each.startswith("deepmine_auto.")}
    private = {name for file in files for name in names_from_us(file)} - set(deepmine_auto.__all__)
    assert deeper == set()
    assert private == set()


def test_every_public_name_can_be_had() -> None:
    assert {name: getattr(deepmine_auto, name) is not None for name in deepmine_auto.__all__}


def test_every_word_that_the_contracts_are_typed_with_is_public() -> None:
    words = {name for name in contracts.__all__ if get_origin(getattr(contracts, name)) is Literal}
    assert len(words) > 5
    assert words <= set(deepmine_auto.__all__)


def test_ray_is_known_in_one_room_alone(checkout: Path) -> None:
    knowing = {file.parent.relative_to(checkout).as_posix() for file in python_files(checkout / "deepmine_auto")
               if any(each.split(".")[0] == "ray" for each in imports_of(file))}  # fmt: skip
    assert knowing == {"deepmine_auto/executors/ray"}


@pytest.mark.parametrize(
    "module", ["deepmine_auto", "deepmine_auto.host", "deepmine_auto.cli", "deepmine_plugins.doors"]
)
def test_a_light_module_loads_nothing_heavy(module: str) -> None:
    assert loaded_after(f"import {module}").isdisjoint(HEAVY)


def test_every_package_is_listed_for_the_wheel(checkout: Path) -> None:
    setup = tomllib.loads((checkout / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {name: checkout / place for name, place in setup["package-dir"].items()}
    found = {
        ".".join((name, *init.parent.relative_to(folder).parts))
        for name, folder in folders.items()
        for init in folder.rglob("__init__.py")
    }
    assert found == set(setup["packages"])


def test_no_folder_of_code_lacks_its_init(checkout: Path) -> None:
    roots = [checkout / each for each in ("deepmine_auto", "plugins", "search_spaces")]
    bare = {file.parent for root in roots for file in python_files(root) if not (file.parent / "__init__.py").exists()}
    assert bare == set()
