import json
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deepmine_auto.training import checkpoint
from deepmine_auto.training.checkpoint import Damaged

TENSORS = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor(3), "c": torch.zeros(0)}
STATE = {"progress": {"step": 3, "best": 0.1 + 0.2, "best_checkpoint": None}}


@pytest.fixture
def place(tmp_path):
    checkpoint.save(tmp_path / "step-1", TENSORS, STATE)
    return tmp_path / "step-1"


def test_what_is_saved_is_read_back_bit_for_bit(place):
    tensors, state = checkpoint.load(place)
    assert state == STATE
    assert tensors.keys() == TENSORS.keys()
    for name, each in TENSORS.items():
        assert torch.equal(tensors[name], each)


@given(hnp.arrays("float32", hnp.array_shapes(), elements=st.floats(width=32)), st.floats(allow_nan=False))
def test_any_float_survives(tmp_path_factory, array, number):
    place = tmp_path_factory.mktemp("any") / "step-1"
    checkpoint.save(place, {"x": torch.from_numpy(array)}, {"n": number})
    tensors, state = checkpoint.load(place)
    assert tensors["x"].numpy().tobytes() == array.tobytes()
    assert state["n"] == number


@pytest.mark.parametrize("name", [checkpoint.TENSORS, checkpoint.STATE, checkpoint.MANIFEST])
def test_a_flipped_byte_is_noticed_wherever_it_is(place, name):
    whole = (place / name).read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 25)):
        changed = bytearray(whole)
        changed[at] ^= 1
        (place / name).write_bytes(changed)
        with pytest.raises(Damaged, match="The checkpoint before it is used"):
            checkpoint.load(place)


@pytest.mark.parametrize("name", [checkpoint.TENSORS, checkpoint.STATE, checkpoint.MANIFEST])
def test_a_torn_or_missing_file_is_noticed(place, name):
    whole = (place / name).read_bytes()
    for size in (0, 1, len(whole) - 1):
        (place / name).write_bytes(whole[:size])
        with pytest.raises(Damaged, match="The checkpoint before it is used"):
            checkpoint.load(place)
    (place / name).unlink()
    with pytest.raises(Damaged, match="cannot be read"):
        checkpoint.load(place)


def test_a_manifest_of_another_kind_is_noticed(place):
    (place / checkpoint.MANIFEST).write_text("[]")
    with pytest.raises(Damaged, match="cannot be read"):
        checkpoint.load(place)


def test_files_reach_the_disk_before_the_folder_gets_its_name(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(checkpoint, "flush", lambda path: flushed.append((path.name, (tmp_path / "step-1").exists())))
    checkpoint.save(tmp_path / "step-1", TENSORS, STATE)
    before = [name for name, named in flushed if not named]
    assert before[:3] == [checkpoint.TENSORS, checkpoint.STATE, checkpoint.MANIFEST]
    assert flushed[-1] == (tmp_path.name, True)


def test_a_writer_that_was_killed_leaves_nothing_under_the_name(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "flush", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path / "step-1", TENSORS, STATE)
    assert not (tmp_path / "step-1").exists()
    assert [each.name for each in tmp_path.iterdir()] == [f".step-1.{os.getpid()}"]
    monkeypatch.undo()
    checkpoint.save(tmp_path / "step-1", TENSORS, STATE)
    assert [each.name for each in tmp_path.iterdir()] == ["step-1"]


def test_an_existing_one_of_the_name_is_replaced(place):
    checkpoint.save(place, {"z": torch.ones(1)}, {"new": True})
    assert checkpoint.load(place)[1] == {"new": True}


def test_the_files_are_safetensors_and_json(place):
    assert sorted(each.name for each in place.iterdir()) == [checkpoint.MANIFEST, checkpoint.STATE, checkpoint.TENSORS]
    assert json.loads((place / checkpoint.STATE).read_text()) == STATE
    assert set(json.loads((place / checkpoint.MANIFEST).read_text())) == {checkpoint.TENSORS, checkpoint.STATE}


def test_an_optimizers_state_survives_with_its_plain_values():
    weight = torch.nn.Parameter(torch.randn(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    weight.sum().backward()
    optimizer.step()
    tensors, plain = checkpoint.flatten_optimizer(optimizer)
    other = torch.optim.AdamW([torch.nn.Parameter(weight.detach().clone())], lr=0.5)
    checkpoint.restore_optimizer(other, tensors, json.loads(json.dumps(plain)))
    assert other.state_dict()["param_groups"][0]["lr"] == 0.1
    for name, value in optimizer.state_dict()["state"][0].items():
        assert torch.equal(other.state_dict()["state"][0][name], value)


def test_a_prefix_names_whole_words():
    tensors = {"model.a": torch.ones(1), "modeler.b": torch.ones(1), "model.model.c": torch.ones(1)}
    assert set(checkpoint.under("model", tensors)) == {"a", "model.c"}
