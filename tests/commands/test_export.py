"""`export` writes a finished study's winner, or another trial that was kept, once more."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import deepmine_auto
from deepmine_auto import concluding
from deepmine_auto.bundle.parity import NotEqual, difference
from deepmine_auto.commands.export import export
from deepmine_auto.errors import BadInput
from deepmine_auto.storage import tables
from deepmine_auto.storage.store import Store

SPACE = """
[plugins]
attention = ["multi_head"]
optimizer = ["adamw"]
technique = []
[ranges]
"training/epochs" = 1
"model/dim" = [32]
"model/depth" = 1
"data/tokens" = ["word"]
"""
TEXTS = ["so good", "a sad day"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of two trials on sixty rows, finished."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "space.toml").write_text(SPACE)
    words = {"up": "good great fine", "down": "bad sad poor"}
    rows = [(f"{words[label].split()[at % 3]} day {at}", label) for at in range(30) for label in words]
    (folder / "rows.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return deepmine_auto.search(
        task="text_classification",
        data=str(folder / "rows.csv"),
        space=str(folder / "space.toml"),
        storage=str(folder / "studies.db"),
        executor="inline",
        trials=2,
        study="small",
    )


def run(study, *args):
    where = ["--storage", str(study.storage)]
    return CliRunner().invoke(export, [*args, *where], catch_exceptions=False).stdout.strip()


def test_the_winner_exported_again_is_the_winner(study, tmp_path):
    folder = Path(run(study, "small", "--output", str(tmp_path / "again")))
    again, first = deepmine_auto.load(folder), deepmine_auto.load(study.bundle)
    np.testing.assert_allclose(again.outputs(TEXTS), first.outputs(TEXTS), atol=1e-6)
    for told in ("sentence", "evidence", "trial", "params", "fingerprint"):
        assert again.manifest[told] == first.manifest[told]


def test_another_trial_is_exported_without_opening_the_test(study, tmp_path):
    folder = Path(run(study, "small", "--trial", "0", "--output", str(tmp_path / "other")))
    told = json.loads((folder / "manifest.json").read_text())
    assert told["trial"] == 0
    assert told["evidence"] is None
    assert "The locked test was not opened for these weights." in (folder / "README.md").read_text()
    assert deepmine_auto.load(folder).predict(TEXTS)
    store = Store(study.storage.open_reader())
    events = store.rows(tables.events, store.study("small").id)
    assert sum(each["kind"] == "test opened" for each in events) == 1


def merging(by):
    """A way to merge that changes each weight by so much of itself."""

    def merge(model):
        with torch.no_grad():
            for each in model.parameters():
                each.mul_(1 + by)
        return True

    return merge


def test_what_is_rounded_otherwise_once_it_is_merged_is_exported(study, tmp_path, monkeypatch):
    monkeypatch.setattr(concluding, "merge", merging(1e-5))
    folder = Path(run(study, "small", "--output", str(tmp_path / "merged")))
    off = difference(deepmine_auto.load(folder).outputs(TEXTS), deepmine_auto.load(study.bundle).outputs(TEXTS))
    assert 1e-6 < off < 1e-3


def test_what_says_something_else_once_it_is_merged_is_not_exported(study, tmp_path, monkeypatch):
    monkeypatch.setattr(concluding, "merge", merging(0.2))
    with pytest.raises(NotEqual, match=r"differs by .* once what it learned is merged into it\."):
        run(study, "small", "--output", str(tmp_path / "merged"))
    assert not (tmp_path / "merged").exists()


def test_without_output_the_bundle_stands_in_the_studys_folder(study):
    folder = Path(run(study, "small", "--trial", "1"))
    assert folder == study.bundle.parent / "export-trial-1"
    with pytest.raises(BadInput, match="exists already"):
        run(study, "small", "--trial", "1")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["smal"], r"'smal' is no study in .*\. Did you mean 'small'\?"),
        (["small", "--trial", "9"], r"'small' has no trial 9\. It has the trials 0 to 1"),
        (["small", "--trial", "-1"], r"'small' has no trial -1"),
    ],
)
def test_what_does_not_exist_is_refused(study, args, told):
    with pytest.raises(BadInput, match=told):
        run(study, *args)


def test_a_database_that_does_not_exist_is_refused(tmp_path):
    missing = ["small", "--storage", str(tmp_path / "no.db")]
    with pytest.raises(BadInput, match="There is no study database"):
        CliRunner().invoke(export, missing, catch_exceptions=False)


def test_a_checkpoint_that_was_not_kept_is_refused_with_those_that_were(study, tmp_path):
    checkpoints = study.bundle.parent / "checkpoints"
    shutil.move(checkpoints / "trial-00000", tmp_path / "away")
    try:
        with pytest.raises(BadInput, match=r"weights of trial 0 were not kept\. The best are kept: 1\."):
            run(study, "small", "--trial", "0", "--output", str(tmp_path / "none"))
    finally:
        shutil.move(tmp_path / "away", checkpoints / "trial-00000")
    assert not (tmp_path / "none").exists()


def test_a_damaged_checkpoint_is_refused_and_no_untrained_weights_are_exported(study, tmp_path):
    (tensors,) = (study.bundle.parent / "checkpoints" / "trial-00001").glob("*/*/tensors.safetensors")
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(BadInput, match=r"weights of trial 1 are lost: .*is not what was written"):
            run(study, "small", "--trial", "1", "--output", str(tmp_path / "none"))
    finally:
        tensors.write_bytes(whole)
    assert not (tmp_path / "none").exists()
