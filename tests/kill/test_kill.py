"""Drivers killed by SIGKILL at any time, and resumed: what they acknowledged, outside the database, is never lost."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import Desk, told

from deepmine_auto.storage import tables

HERE = Path(__file__).parent
TRIALS = 20
KILLS = 6


def driver(folder, log):
    """Start a driver whose standard output is the log of acknowledgements."""
    command = [sys.executable, str(HERE / "worker.py"), str(folder), str(TRIALS)]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    return subprocess.Popen(command, stdout=log, stderr=subprocess.PIPE, env=environment, text=True)


def acknowledged(log):
    """The numbers that drivers printed; a torn last line is none."""
    return [int(line) for line in log.read_text().splitlines() if line.isdigit()]


def wait_for(process, log, count):
    """Wait until so many trials are acknowledged, or the driver ends by itself."""
    while process.poll() is None and len(acknowledged(log)) < count:
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_no_acknowledged_trial_is_lost_or_changed_by_sigkill(tmp_path, seed):
    rng = random.Random(seed)
    (tmp_path / "whole").mkdir()
    whole = Desk(tmp_path / "whole")
    from deepmine_auto.study.budget import Budget

    study = whole.begin()
    whole.work(study, Budget(trials=TRIALS))
    folder, log = tmp_path / "killed", tmp_path / "acknowledged.txt"
    folder.mkdir()
    log.touch()
    finished, kills = {}, 0
    while True:
        with open(log, "a") as opened:
            process = driver(folder, opened)
            if kills < KILLS:
                wait_for(process, log, len(acknowledged(log)) + rng.randint(1, 2))
                time.sleep(rng.uniform(0, 0.06))
                process.send_signal(signal.SIGKILL)
            _, error = process.communicate(timeout=120)
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, error
            break
        kills += 1
        rows = {each["number"]: each for each in told(Desk(folder).store.trials(1))}
        for number in acknowledged(log):
            assert rows[number]["state"] in ("COMPLETE", "PRUNED", "FAIL"), "an acknowledged trial was lost"
        for number, row in finished.items():
            assert rows[number] == row, "a finished trial was changed"
        finished = {number: row for number, row in rows.items() if row["state"] != "RUNNING"}
    assert kills == KILLS
    desk = Desk(folder)
    rows = told(desk.store.trials(1))
    print(f"kills {kills}, acknowledged {len(acknowledged(log))}, trials {len(rows)}")
    assert {number: rows[number] for number in finished} == finished
    assert set(acknowledged(log)) <= set(range(TRIALS))
    assert len(rows) == TRIALS, "exactly so many trials, however often killed"
    assert not [row for row in rows if row["state"] == "RUNNING"], "no zombies"
    assert all(row["attrs"]["cause"] for row in rows)
    assert [plain(row) for row in rows] == [plain(row) for row in told(whole.trials(study))], (
        "as if nothing had happened"
    )
    assert {row["state"] for row in desk.store.rows(tables.reruns, 1)} == {"COMPLETE"}
    seqs = [row["seq"] for row in desk.store.rows(tables.reports, 1)]
    assert seqs == list(range(1, len(seqs) + 1))


def plain(row):
    """A row without the path that names the attempt."""
    return {**row, "attrs": {key: value for key, value in row["attrs"].items() if key != "checkpoint"}}
