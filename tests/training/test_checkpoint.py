import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import SafetensorError

from deepmine_auto import failpoints
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


def test_tensors_that_share_memory_are_read_back_each_whole(tmp_path):
    """Tied weights have two names, and a part may lie in a whole."""
    table = torch.arange(6.0).reshape(3, 2)
    tensors = {"table": table, "tied": table.detach(), "row": table[1]}
    checkpoint.save(tmp_path / "step-1", tensors, STATE)
    found, _ = checkpoint.load(tmp_path / "step-1")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], each) for name, each in tensors.items())


def test_what_shares_no_memory_is_written_without_a_copy():
    """A checkpoint must not take the memory of the model once more."""
    table = torch.ones(3)
    apart = checkpoint._apart({"table": table, "tied": table})
    assert apart["table"].data_ptr() == table.data_ptr() != apart["tied"].data_ptr()


@settings(deadline=None)
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


@pytest.fixture
def trace(tmp_path, monkeypatch):
    """What is brought to the disk and renamed below `tmp_path`, in order, with the pid left out of names."""
    seen = []

    def named(path):
        return str(path.relative_to(tmp_path)).replace(f".{os.getpid()}", "")

    def flush(path):
        assert path.exists()
        seen.append(f"fsync {named(path)}")

    def rename(path, target):
        seen.append(f"rename {named(path)} {named(target)}")
        return os.rename(path, target)

    monkeypatch.setattr(checkpoint, "flush", flush)
    monkeypatch.setattr(Path, "rename", rename)
    return seen


def test_every_byte_and_every_name_is_on_the_disk_before_the_next_step_counts_on_it(tmp_path, trace):
    """Files, manifest, their folder, then the name, then the folder that has the name; new parents first of all."""
    checkpoint.save(tmp_path / "trial-1" / "attempt-1" / "step-1", TENSORS, STATE)
    inside = "trial-1/attempt-1/.step-1"
    assert trace == [
        "fsync .",
        "fsync trial-1",
        f"fsync {inside}/{checkpoint.TENSORS}",
        f"fsync {inside}/{checkpoint.STATE}",
        f"fsync {inside}/{checkpoint.MANIFEST}",
        f"fsync {inside}",
        f"rename {inside} trial-1/attempt-1/step-1",
        "fsync trial-1/attempt-1",
    ]


def test_flushing_asks_the_system_for_files_and_folders(tmp_path, monkeypatch):
    """The order above is worth something only if each of its steps reaches fsync."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.readlink(f"/proc/self/fd/{handle}")))
    checkpoint.save(tmp_path / "step-1", TENSORS, STATE)
    unfinished = str(tmp_path / f".step-1.{os.getpid()}")
    files = [f"{unfinished}/{each}" for each in (checkpoint.TENSORS, checkpoint.STATE, checkpoint.MANIFEST)]
    assert synced == [*files, unfinished, str(tmp_path)]


@pytest.mark.parametrize("at", ["before_checkpoint_rename", "after_checkpoint_rename"])
def test_a_writer_that_is_killed_leaves_a_whole_checkpoint_or_none(tmp_path, at):
    code = "import sys, torch; from pathlib import Path; from deepmine_auto.training import checkpoint\n"
    code += "checkpoint.save(Path(sys.argv[1]), {'a': torch.ones(3)}, {'n': 1})"
    environment = {**os.environ, failpoints.VARIABLE: f"{at}:kill"}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "step-1")], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    if at.startswith("before"):
        assert not (tmp_path / "step-1").exists()
    else:
        assert checkpoint.load(tmp_path / "step-1")[1] == {"n": 1}


def test_what_a_killed_writer_left_is_in_nobodys_way(tmp_path):
    """Another one may have its number."""
    torn = tmp_path / f".step-1.{os.getpid()}"
    torn.mkdir()
    (torn / "rest").write_text("half")
    checkpoint.save(tmp_path / "step-1", TENSORS, STATE)
    assert [each.name for each in tmp_path.iterdir()] == ["step-1"]
    assert sorted(each.name for each in (tmp_path / "step-1").iterdir()) == [
        checkpoint.MANIFEST,
        checkpoint.STATE,
        checkpoint.TENSORS,
    ]


# -- a disk that is full or away --------------------------------------------------------------------------------------


@pytest.fixture
def pauses(monkeypatch):
    """The seconds that were waited, without waiting."""
    waited = []
    monkeypatch.setattr(checkpoint.time, "sleep", waited.append)
    return waited


def failing(times, error, call):
    """`call`, which raises at first."""
    left = [error] * times

    def called(*args):
        if left:
            raise left.pop()
        return call(*args)

    return called


def test_a_disk_that_is_away_is_waited_for_before_a_checkpoint_counts_as_lost(tmp_path, monkeypatch, pauses):
    checkpoint.save(tmp_path / "step-1", TENSORS, STATE)
    gone = OSError(errno.ESTALE, "Stale file handle")
    monkeypatch.setattr(checkpoint, "sha256", failing(2, gone, checkpoint.sha256))
    assert checkpoint.load(tmp_path / "step-1")[1] == STATE
    assert pauses == [checkpoint.SECONDS_BETWEEN_TRIES] * 2
    monkeypatch.setattr(checkpoint, "sha256", failing(checkpoint.READING_TRIES, gone, checkpoint.sha256))
    with pytest.raises(checkpoint.Damaged, match=r"step-1 cannot be read: .*Stale file handle"):
        checkpoint.check(tmp_path / "step-1")


def test_a_checkpoint_that_is_not_there_is_not_waited_for(tmp_path, pauses):
    with pytest.raises(checkpoint.Damaged, match="cannot be read"):
        checkpoint.load(tmp_path / "step-1")
    assert pauses == []


RUST = "Error while serializing: I/O error: No space left on device (os error 28)"


FULL = "No space left on device"


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (OSError(errno.ENOSPC, "full"), FULL),
        (SafetensorError(RUST), FULL),
        (OSError(errno.EDQUOT, "quota"), "Disk quota exceeded"),
        (OSError(errno.ESTALE, "gone"), "Stale file handle"),
        (OSError(errno.ENOTCONN, "gone"), "Transport endpoint is not connected"),
    ],
)
@pytest.mark.parametrize("where", ["save_file", "flush"])
def test_a_disk_that_is_full_or_away_is_waited_for_and_said_once(
    tmp_path, monkeypatch, capsys, pauses, error, what, where
):
    monkeypatch.setattr(checkpoint, where, failing(2, error, getattr(checkpoint, where)))
    checkpoint.save(tmp_path / "step-1", TENSORS, STATE)
    assert checkpoint.load(tmp_path / "step-1")[1] == STATE
    assert [each.name for each in tmp_path.iterdir()] == ["step-1"]
    assert pauses == [checkpoint.SECONDS_BETWEEN_TRIES] * 2
    said = capsys.readouterr().err
    assert said == f"{tmp_path / 'step-1'} cannot be written: {what}. Training waits up to ten minutes for that.\n"


def test_nothing_half_written_stands_on_the_full_disk_while_we_wait(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(checkpoint, "flush", failing(1, OSError(errno.ENOSPC, "full"), checkpoint.flush))
    monkeypatch.setattr(checkpoint.time, "sleep", lambda _seconds: seen.append(list(tmp_path.iterdir())))
    checkpoint.save(tmp_path / "step-1", TENSORS, STATE)
    assert seen == [[]]


def test_after_ten_minutes_the_error_is_raised(tmp_path, monkeypatch, pauses):
    monkeypatch.setattr(checkpoint, "flush", failing(10**6, OSError(errno.ENOSPC, "still full"), None))
    with pytest.raises(OSError, match="still full"):
        checkpoint.save(tmp_path / "step-1", TENSORS, STATE)
    assert 590 <= sum(pauses) <= 600
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(errno.EROFS, "read-only"), SafetensorError("something else")])
def test_any_other_error_is_raised_at_once_and_nothing_is_left(tmp_path, monkeypatch, pauses, error):
    monkeypatch.setattr(checkpoint, "save_file", failing(1, error, None))
    with pytest.raises(type(error), match=r"read-only|something else"):
        checkpoint.save(tmp_path / "step-1", TENSORS, STATE)
    assert pauses == []
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("only root may mount a file system")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_really_full_is_recognised(small_disk, monkeypatch):
    """Whatever text safetensors has for it in this version."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(900_000))
    monkeypatch.setattr(checkpoint.time, "sleep", lambda _seconds: ballast.unlink())
    checkpoint.save(small_disk / "step-1", {"a": torch.ones(100_000)}, STATE)
    assert checkpoint.load(small_disk / "step-1")[1] == STATE


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
