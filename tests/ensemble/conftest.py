"""A study of three trials on 300 tweets, searched once in this process, and the ensemble of it."""

import csv

import pytest
from forming_kit import TRIALS, Formed, run

import deepmine_auto
from deepmine_auto.bundle import parity
from deepmine_auto.host import the_host

SPACE = """
[plugins]
attention = ["multi_head", "linear"]
optimizer = ["adamw"]
technique = []
pruner = "none"
[ranges]
"training/epochs" = 3
"training/batch" = [16]
"optimizer/adamw/lr" = 3e-3
"model/dim" = [32]
"model/depth" = 1
"data/tokens" = ["word", "subword"]
"""


def rows_in(folder):
    """Write tweets into a file."""
    rows = the_host().get("task", "sentiment")().read(deepmine_auto.Source()).take(range(300))
    with open(folder / "rows.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *zip(rows.inputs, rows.labels, strict=True)])
    return folder / "rows.csv"


@pytest.fixture(scope="session")
def averaged_study(tmp_path_factory):
    """The finished study."""
    folder = tmp_path_factory.mktemp("ensemble")
    (folder / "space.toml").write_text(SPACE)
    return deepmine_auto.search(
        task="text_classification",
        data=str(rows_in(folder)),
        space=str(folder / "space.toml"),
        objective="log_loss",
        storage=str(folder / "studies.db"),
        executor="inline",
        trials=TRIALS,
        study="small",
    )


@pytest.fixture
def unverified(monkeypatch):
    """Exports without the look at them in a clean process, which takes seconds and is not what a test is about."""
    monkeypatch.setattr(parity, "verify", lambda *_: 0.0)


@pytest.fixture(scope="session")
def formed(averaged_study, tmp_path_factory):
    """What `ensemble` made and said."""
    return Formed(averaged_study, *run(averaged_study, tmp_path_factory.mktemp("formed") / "ensemble"))
