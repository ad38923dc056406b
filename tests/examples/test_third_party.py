"""A third party's distribution, installed into a fresh environment, is searched with, exported and asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from environments import Environment

SPACE = """
[plugins]
attention = ["l2", "multi_head"]
optimizer = ["signum"]
[ranges]
"model/depth" = 1
"model/dim" = [32]
"training/epochs" = 1
"""


@pytest.fixture(scope="module")
def fresh(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    place = tmp_path_factory.mktemp("fresh")
    copies = {"ours": checkout, "theirs": checkout / "examples" / "third_party"}
    environment = Environment(place / "venv")
    for name, source in copies.items():
        leave = shutil.ignore_patterns(".*", "*.egg-info", "build", "deepmine-auto", "__pycache__")
        shutil.copytree(source, place / name, ignore=leave)  # a build writes into the folder that it builds
        environment.install(place / name)
    return environment


@pytest.mark.slow
def test_its_plugins_stand_beside_ours(fresh: Environment, tmp_path: Path) -> None:
    rows = json.loads(fresh.run("deepmine-auto", "plugins", "list", "--json", folder=tmp_path))
    theirs = {(row["kind"], row["name"]) for row in rows["plugins"] if row.get("distribution") == "deepmine-brackets"}
    assert theirs == {("attention", "l2"), ("task", "brackets"), ("optimizer", "signum")}


@pytest.mark.slow
def test_it_is_searched_with_exported_and_asked(fresh: Environment, tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text(SPACE)
    asked = ["--task", "brackets", "--space", "space.toml", "--attention", "l2", "--trials", "2"]
    found = json.loads(fresh.run("deepmine-auto", "search", *asked, "--executor", "inline", "--json", folder=tmp_path))
    answer = json.loads(
        fresh.run("deepmine-auto", "predict", found["result"]["bundle"], "( [ ] )", "--json", folder=tmp_path)
    )
    manifest = json.loads((Path(found["result"]["bundle"]) / "manifest.json").read_text())

    assert answer["label"] in ("balanced", "broken")
    assert {each["distribution"] for each in manifest["plugins"]} == {"deepmine-auto", "deepmine-brackets"}
