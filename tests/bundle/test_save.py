"""A bundle has its name only when a clean process has reloaded it and got the same outputs."""

import errno
import json
import os
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from safetensors import SafetensorError
from torch import nn

from deepmine_auto.bundle import manifest, parity, save
from deepmine_auto.errors import BadInput, DeepmineError
from deepmine_auto.tagging import SymbolsPrepared


def _nothing_is_left(folder):
    return [*folder.iterdir()] == []


def test_a_bundle_that_differs_after_reloading_is_not_given_its_name(tmp_path):
    inputs, outputs = tiny.asked()
    with pytest.raises(parity.NotEqual, match=r"differs by 1\.\de-0. after reloading\. It was not given its name"):
        save.save(tmp_path / "bundle", tiny.exported(), inputs, outputs + np.float32(1e-3))
    assert _nothing_is_left(tmp_path)


def test_weights_that_change_on_their_way_to_the_disk_are_found_out(tmp_path, monkeypatch):
    def spoiled(file, weights):
        weights = {name: each.clone() for name, each in weights.items()}
        weights["head.to_classes.bias"] += 1e-2
        written(file, weights)

    written = save.save_weights
    monkeypatch.setattr(save, "save_weights", spoiled)
    with pytest.raises(parity.NotEqual, match=r"cannot be reloaded: .*computes something else"):
        save.save(tmp_path / "bundle", tiny.exported(), *tiny.asked())
    assert _nothing_is_left(tmp_path)


@pytest.mark.parametrize("at", ["save_weights", "card", "_probe", "_config"])
@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt("ctrl-c")])
def test_what_ends_in_the_middle_leaves_nothing(tmp_path, monkeypatch, at, error):
    def fails(*_):
        raise error

    monkeypatch.setattr(save, at, fails)
    with pytest.raises(type(error), match=str(error)):
        save.save(tmp_path / "bundle", tiny.exported(), *tiny.asked())
    assert _nothing_is_left(tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("I/O error: no (os error 28)"),
        Exception("No space left on device (os error 28)"),  # as tokenizers has it
    ],
)
def test_a_disk_that_is_full_is_a_sentence_and_leaves_nothing(tmp_path, monkeypatch, error):
    def fails(*_):
        raise error

    monkeypatch.setattr(save, "save_weights", fails)
    with pytest.raises(
        DeepmineError, match=r"There is no room for .*bundle\. Make room, and run the same command again"
    ):
        save.save(tmp_path / "bundle", tiny.exported(), *tiny.asked())
    assert _nothing_is_left(tmp_path)


def test_room_for_a_bundle_is_asked_for_by_its_weights(tmp_path, monkeypatch):
    model = nn.Linear(1000, 1000)
    monkeypatch.setattr(save, "BESIDE_WEIGHTS", 0)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=4 * 1001 * 1000))
    save.refuse_without_room(tmp_path / "new" / "bundle", model)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=4 * 1001 * 1000 - 1))
    with pytest.raises(DeepmineError, match=r"There is no room for .*bundle, which takes 4 MB\. Make room"):
        save.refuse_without_room(tmp_path / "new" / "bundle", model)


def test_a_weight_that_is_shared_is_written_twice_and_takes_room_twice(tmp_path, monkeypatch):
    table = nn.Embedding(1000, 1000)
    model = nn.Sequential(table, table)
    monkeypatch.setattr(save, "BESIDE_WEIGHTS", 0)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=8_000_000 - 1))
    with pytest.raises(DeepmineError, match=r"which takes 8 MB\. Make room"):
        save.refuse_without_room(tmp_path / "bundle", model)


def hidden(name, process):
    """What an export of this process calls a bundle of this name until it is whole."""
    return f".{name}.deepmine-auto-unfinished-{process}"


@pytest.fixture(scope="module")
def dead():
    """The number of a process that has ended."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    return ended.pid


def test_what_a_killed_export_left_is_gone_after_the_next_and_nothing_else_is(tmp_path, dead):
    """Of what is named like it, the number of this process may be a dead one's too; the others are somebody else's."""
    left, mine, at_work = (tmp_path / hidden("bundle", each) for each in (dead, os.getpid(), os.getppid()))
    foreign = [".bundle.cache", f".bundle.{dead}", hidden("bundle", "one"), hidden("other", dead)]
    for each in (left, mine, at_work, *(tmp_path / each for each in foreign)):
        each.mkdir()
    (mine / "torn").touch()
    save.save(tmp_path / "bundle", tiny.exported(), *tiny.asked())
    assert {each.name for each in tmp_path.iterdir()} == {at_work.name, *foreign, "bundle"}
    assert not (tmp_path / "bundle" / "torn").exists()


def test_a_name_is_no_pattern_of_the_folders_to_be_deleted(tmp_path, dead):
    (tmp_path / hidden("[ab]", dead)).mkdir()
    (tmp_path / hidden("a", dead)).mkdir()
    with save.named_when_whole(tmp_path / "[ab]"):
        assert {each.name for each in tmp_path.iterdir()} == {hidden("a", dead), hidden("[ab]", os.getpid())}


def test_all_of_a_bundle_is_on_the_disk_before_its_name_and_its_name_before_it_is_told(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(save, "flush", lambda place: flushed.append((place.name, (tmp_path / "bundle").exists())))
    save.save(tmp_path / "bundle", tiny.exported(), *tiny.asked())
    assert flushed == [(hidden("bundle", os.getpid()), False), (tmp_path.name, True)]


def test_a_probe_draws_none_of_the_callers_random_numbers():
    before = torch.get_rng_state()
    save._probe(tiny.exported())
    assert torch.equal(torch.get_rng_state(), before)


def test_what_ends_before_the_name_is_given_leaves_nothing(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError("disk full")

    monkeypatch.setattr(manifest, "flush", fails)
    with pytest.raises(OSError, match="disk full"):
        save.save(tmp_path / "bundle", tiny.exported(), *tiny.asked())
    assert _nothing_is_left(tmp_path)


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"exists already\. Give another --output"):
        save.save(tmp_path / "bundle", tiny.exported(), *tiny.asked())
    assert [each.name for each in (tmp_path / "bundle").iterdir()] == ["mine.txt"]


def test_a_link_to_nowhere_is_refused(tmp_path):
    os.symlink(tmp_path / "nowhere", tmp_path / "bundle")
    with pytest.raises(BadInput, match="exists already"):
        save.save(tmp_path / "bundle", tiny.exported(), *tiny.asked())


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="bundle cannot be made: Not a directory"):
        save.save(tmp_path / "file" / "bundle", tiny.exported(), *tiny.asked())


def test_all_files_are_as_readable_as_any_new_file():
    modes = {each.stat().st_mode for each in tiny.bundle().iterdir()}
    assert len(modes) == 1


def test_a_label_may_be_any_text(tmp_path):
    made = tiny.exported()
    fitted = replace(made.prepared.fitted, labels=("auto_map", "<b>"))
    save.save(tmp_path / "bundle", replace(made, prepared=replace(made.prepared, fitted=fitted)), *tiny.asked())
    assert json.loads((tmp_path / "bundle" / "config.json").read_text())["id2label"] == {"0": "auto_map", "1": "<b>"}


def test_the_card_of_symbols_names_nothing_that_only_texts_have(tmp_path, monkeypatch):
    monkeypatch.setattr(save, "_probe", lambda _: [])
    symbols = SymbolsPrepared(("[PAD]", "[UNK]", "a"), ("x", "y"), 8)
    save._write(tmp_path, replace(tiny.exported(), prepared=symbols))
    told = (tmp_path / "README.md").read_text()
    assert "tokenizer.json" not in told
    assert "transformers" not in told


def test_a_folder_that_cannot_be_made_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"Nothing can be written in .*/file\. Give another --output"):
        save.refuse_unmakeable(tmp_path / "file" / "deeper" / "bundle")
    save.refuse_unmakeable(tmp_path / "new" / "deeper" / "bundle")
