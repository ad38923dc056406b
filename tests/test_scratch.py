"""What a process needs for a while does not stay for ever, and is never taken from one that lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from deepmine_auto.scratch import scratch

HOLDER = """
import time
from deepmine_auto.scratch import scratch
with scratch("kind") as folder:
    (folder / "file").touch()
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_a_folder_is_there_for_a_while_whatever_ends_it(tmp_path):
    def interrupted():
        with scratch("kind") as folder:
            (folder / "file").touch()
            assert [*tmp_path.iterdir()] == [folder]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [*tmp_path.iterdir()] == []


def test_what_a_killed_process_has_left_is_deleted_and_what_one_has_that_lives_is_not(tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        (tmp_path / holder.stdout.readline().strip() / "file").stat()
        with scratch("kind"), scratch("kind"):
            assert len([*tmp_path.glob("*/file")]) == 1
            assert len([*tmp_path.iterdir()]) == 3
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate(timeout=60)
    assert len([*tmp_path.glob("*/file")]) == 1, "nobody was left to delete it"
    with scratch("kind") as folder:
        assert [*tmp_path.iterdir()] == [folder]


def test_folders_of_another_kind_or_machine_and_links_stay(tmp_path, monkeypatch):
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "file").touch()
    monkeypatch.setattr("socket.gethostname", lambda: "here")
    for name in ("kind-there-1", "other-here-1", "kind-12345678"):
        (tmp_path / name).mkdir()
    (tmp_path / "kind-here-1").symlink_to(tmp_path / "away")
    before = {*tmp_path.iterdir()}
    with scratch("kind"):
        assert before < {*tmp_path.iterdir()}
    assert {*tmp_path.iterdir()} == before
    assert (tmp_path / "away" / "file").exists()
