"""A search on Ray that is interrupted or killed: it ends with its code, leaves nothing running, and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from pathlib import Path

import pytest
from cluster import cluster, marked, until
from typed import PROGRAM, command, space_in

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROWS = ["text,label", *(f"a {word} film number {at},{label}" for at in range(20)
                        for word, label in (("good", "up"), ("bad", "down")))]  # fmt: skip
TRIALS = 10
HURRY = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5", "RAY_gcs_server_request_timeout_seconds": "5"}
"""So long what a raylet was just starting when it was ended looks for its head, and then goes too."""


class Driver:
    """A command in a process of its own, whose environment marks it and all that it starts."""

    def __init__(self, folder: Path, *args: str) -> None:
        self.mark = f"mark-{uuid.uuid4()}"
        self.told = folder / f"told-{self.mark}"
        with self.told.open("w") as told:
            environment = {**os.environ, **HURRY, "DEEPMINE_AUTO_TEST_MARK": self.mark}
            self.process = subprocess.Popen(
                [*PROGRAM, *args], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=told
            )

    def tells(self, what: str) -> None:
        """Wait until it has told something."""
        until(lambda: what in self.told.read_text() or self.process.poll() is not None, what, 300)
        assert self.process.poll() is None, self.told.read_text()

    def has_started(self, name: str) -> None:
        """Wait until one of its processes is of a program."""
        until(lambda: any(name in _command_of(each) for each in marked(self.mark)), f"{name} has started")

    def ends_of(self, *signals: int) -> int:
        """Send signals, and return its exit code once nothing of it is left; it must not tell of a traceback."""
        for number in signals:
            self.process.send_signal(number)
            time.sleep(0.05)
        self.process.communicate(timeout=60)
        until(lambda: not marked(self.mark), f"{[_command_of(each) for each in marked(self.mark)]} ended", 150)
        assert "Traceback" not in self.told.read_text(), self.told.read_text()
        return self.process.returncode


def _command_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:  # it ended
        return ""


def finished(folder: Path) -> dict[int, dict]:
    """The trials that have ended, by number."""
    done = command("trials", "small", "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    trials = json.loads(done.stdout)["trials"]
    return {each["number"]: each for each in trials if each["state"] != "running"}


HEAD = {"num_cpus": 2, "_system_config": {"gcs_rpc_server_reconnect_timeout_s": 3}}


def search_of(folder: Path) -> list[str]:
    """A search with two workers on forty rows."""
    (folder / "rows.csv").write_text("\n".join(ROWS))
    search = ["search", "--executor", "ray", "--workers", "2", "--task", "text_classification", "--data", "rows.csv"]
    return [*search, "--space", str(space_in(folder)), "--study", "small", "--trials", str(TRIALS)]


@pytest.mark.timeout(900)
def test_a_study_whose_cluster_lost_its_head_goes_on_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("c" * 64)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    with cluster("token", **HEAD) as made:
        address = made.address
        driver = Driver(tmp_path, *search_of(tmp_path), "--address", address)
        driver.tells(" complete ")
        made.head_node.kill_gcs_server()
        driver.process.communicate(timeout=120)
    assert driver.process.returncode != 0
    before = finished(tmp_path)
    assert before
    again = command("resume", "small", folder=tmp_path)
    told = f"There is no Ray cluster at '{address}'. Start one, or give another --address or --executor.\n"
    assert (again.returncode, again.stdout, again.stderr) == (2, "", told)
    last = command("resume", "small", "--executor", "inline", "--json", folder=tmp_path)
    assert last.returncode == 0, last.stderr
    assert json.loads(last.stdout)["trials"] == TRIALS
    now = finished(tmp_path)
    assert {number: now[number] for number in before} == before


@pytest.mark.timeout(900)
def test_however_a_driver_ends_nothing_is_left_running_and_all_that_was_finished_is_kept(tmp_path):
    search = search_of(tmp_path)
    early = Driver(tmp_path, *search)
    early.has_started("raylet")
    assert early.ends_of(signal.SIGTERM) == 143
    assert not (tmp_path / "deepmine-auto" / "small").exists()
    before: dict[int, dict] = {}
    thrice = (signal.SIGINT, signal.SIGINT, signal.SIGINT)
    for signals, code in ((thrice, 130), ((signal.SIGHUP,), 129), ((signal.SIGKILL,), -9)):
        driver = Driver(tmp_path, *(["resume", "small"] if before else search))
        driver.tells(" complete ")
        assert driver.ends_of(*signals) == code
        if code > 0:
            assert driver.told.read_text().splitlines()[-1] == "go on later: deepmine-auto resume small"
        now = finished(tmp_path)
        assert {number: now[number] for number in before} == before
        assert len(now) > len(before)
        before = now
    assert len(before) < TRIALS, "there is something to go on with"
    last = Driver(tmp_path, "resume", "small", "--json")
    out, _ = last.process.communicate(timeout=400)
    assert last.process.returncode == 0, last.told.read_text()
    assert json.loads(out)["trials"] == TRIALS
    now = finished(tmp_path)
    assert sorted(now) == list(range(TRIALS))
    assert {number: now[number] for number in before} == before
