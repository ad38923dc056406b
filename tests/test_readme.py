"""README says what is true: its commands exist, its search space can be read, its Python runs."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

from deepmine_auto import searching
from deepmine_auto.cli import group_of
from deepmine_auto.host import the_host
from deepmine_auto.space_file.building import build_space
from deepmine_auto.space_file.reading import read_space

SPACE = """
[plugins]
attention = ["linear"]
optimizer = ["adamw"]
[ranges]
"model/depth" = 1
"model/dim" = [32]
"training/epochs" = 1
"""


@pytest.fixture(scope="module")
def readme(checkout: Path) -> str:
    return (checkout / "README.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def typed(text: str) -> list[str]:
    """Every `deepmine-auto ...` line of the indented blocks, without what stands behind a comment."""
    lines = (line.strip().removeprefix("$ ").split("  #")[0] for line in text.splitlines() if line.startswith("    "))
    commands = (each.strip() for line in lines for each in line.split(";"))
    return [each for each in commands if each.startswith("deepmine-auto")]


def test_every_command_of_readme_is_understood(readme: str) -> None:
    group = group_of(the_host())
    assert len(typed(readme)) >= 12
    for line in typed(readme):
        _, name, *arguments = shlex.split(line)
        command = group.commands[name]
        while isinstance(command, click.Group) and arguments and arguments[0] in command.commands:
            command = command.commands[arguments.pop(0)]
        command.make_context(name, arguments, resilient_parsing=False)


def test_every_command_is_named_in_readme(readme: str) -> None:
    assert {name for name in the_host().offered("command") if f"deepmine-auto {name}" not in readme} == set()


def test_the_search_space_of_readme_can_be_searched(readme: str, tmp_path: Path) -> None:
    (block,) = blocks(readme, "toml")
    (tmp_path / "space.toml").write_text(block)
    file = read_space(str(tmp_path / "space.toml"))
    space = build_space(file, the_host(), the_host().get("task", "sentiment"), lambda variants, _: dict(variants))
    assert {param.name for param in space.params} >= set(tomllib.loads(block)["ranges"]) - set(space.fixed)


@pytest.mark.slow
def test_the_python_of_readme_runs(readme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (block,) = blocks(readme, "python")
    (tmp_path / "space.toml").write_text(SPACE)
    monkeypatch.chdir(tmp_path)
    small = {"space": "space.toml", "trials": 1, "time_budget": None, "executor": "inline"}
    real, again = searching.search, searching.resume
    monkeypatch.setattr(searching, "search", lambda **fields: real(**{**fields, **small}))
    monkeypatch.setattr(searching, "resume", lambda study, **_: again(study, trials=2))
    exec(compile(block, "README.md", "exec"), {})
    assert "macro-F1" in capsys.readouterr().out


def test_every_figure_has_its_script(readme: str, checkout: Path) -> None:
    figures = readme.partition("## Figures")[2].partition("## Licence")[0]
    for text in (figures, (checkout / "benchmarks" / "README.md").read_text()):
        named = set(re.findall(r"benchmarks/\w+\.py", text))
        assert named
        assert {each for each in named if not (checkout / each).exists()} == set()
