"""Start drivers that may be killed, and count what that cost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fakes import Desk, told

from deepmine_auto.storage import tables
from deepmine_auto.storage.store import Store, StudyRow
from deepmine_auto.study.outbox import left_in

HERE = Path(__file__).parent
CHECKPOINTS = (3, 9)
"""The steps at which the quick training writes a checkpoint that counts."""

KILLED, AWAY = -signal.SIGKILL, 6


class ForkServer:
    """A warm process that forks drivers, one at a time."""

    def __init__(self) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
        }
        command = [sys.executable, str(HERE / "worker.py")]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._line() == "warm"

    def _line(self) -> str:
        return self.process.stdout.readline().strip()

    def begin(self, **job: Any) -> int:
        """Fork a driver, and return its number."""
        print(json.dumps(job), file=self.process.stdin, flush=True)
        return int(self._line())

    def end(self) -> int:
        """How the driver ended."""
        return int(self._line())

    def stop(self) -> None:
        """End it."""
        self.process.stdin.close()
        self.process.wait(60)


@contextmanager
def fork_server() -> Iterator[ForkServer]:
    """A fork server, for a while."""
    server = ForkServer()
    try:
        yield server
    finally:
        server.stop()


@dataclass
class Victim:
    """A study whose drivers are killed; what they acknowledged stands in a log outside the database."""

    desk: Desk
    server: ForkServer
    name: str
    trials: int
    pace: float = 0.0
    kills: int = 0
    finished: dict[int, Any] = field(default_factory=dict)
    lost: int = 0

    def __post_init__(self) -> None:
        self.study: StudyRow = self.desk.begin(self.name)
        self.log, self.errors = (self.desk.folder / f"{self.name}.{each}" for each in ("log", "errors"))
        self.log.touch()

    @property
    def store(self) -> Store:
        """The database, read without a fence."""
        self.desk.free()
        return self.desk.store

    def begin(self, **more: Any) -> int:
        """Start a driver, and return its number."""
        job = {"folder": str(self.desk.folder), "storage": str(self.desk.place), "study": self.name}
        job |= {"trials": self.trials, "log": str(self.log), "errors": str(self.errors), "pace": self.pace}
        return self.server.begin(**job, **more)

    def run(self, **more: Any) -> int:
        """Let a driver run until it ends, and return how."""
        self.begin(**more)
        return self.server.end()

    def lines(self, first: str) -> list[list[str]]:
        """The lines of the log that begin with a word; a torn last one is none."""
        whole = self.log.read_text().rpartition("\n")[0].splitlines()
        return [words[1:] for words in map(str.split, whole) if words[0] == first]

    def acknowledged(self) -> set[tuple[str, int]]:
        """The trials and reruns whose end was acknowledged."""
        return {(kind, int(number)) for kind, number in self.lines("ended")}

    def wait_for(self, count: int, pid: int) -> None:
        """Wait until so many ends are acknowledged, or the driver has ended."""
        while len(self.lines("ended")) < count and Path(f"/proc/{pid}").exists():
            time.sleep(0.002)

    # -- what was lost, and what was done again --

    def compare(self) -> None:
        """Count acknowledged trials that are neither finished nor in an outbox, and finished ones that changed."""
        rows = {each["number"]: each for each in told(self.store.trials(self.study.id))}
        ended = {number: row for number, row in rows.items() if row["state"] != "RUNNING"}
        kept = ended.keys() | self._waiting()
        self.lost += sum(kind == "trial" and number not in kept for kind, number in self.acknowledged())
        self.lost += sum(ended.get(number) != row for number, row in self.finished.items())
        self.finished = ended

    def _waiting(self) -> set[int]:
        """The trials whose end waits in an outbox for the database."""
        entries = [entry for each in left_in(Path(self.study.folder)) for entry in each.entries()]
        told_of = {entry.row["trial_id"] for entry in entries if entry.op == "tell"}
        return {each.number for each in self.store.trials(self.study.id) if each._trial_id in told_of}

    def lost_reruns(self) -> int:
        """The acknowledged reruns that are not finished."""
        ended = {r["number"] for r in self.store.rows(tables.reruns, self.study.id) if r["state"] != "RUNNING"}
        return sum(kind == "rerun" and number not in ended for kind, number in self.acknowledged())

    def redone(self) -> int:
        """The most checkpoint intervals of which an attempt did something again, be it a part."""
        done: dict[tuple[str, str], set[int]] = defaultdict(set)
        again: dict[tuple[str, str, str], set[int]] = defaultdict(set)
        for kind, number, attempt, text in self.lines("step"):
            step = int(text)
            if step in done[kind, number]:
                again[kind, number, attempt].add(min(each for each in CHECKPOINTS if each >= step))
            done[kind, number].add(step)
        return max(map(len, again.values()), default=0)

    def duplicates(self) -> int:
        """Trials that have the number or the params of another."""
        rows = self.store.trials(self.study.id)
        return 2 * len(rows) - len({each.number for each in rows}) - len({str(each.params) for each in rows})

    def zombies(self) -> int:
        """Trials and reruns that are RUNNING without a driver."""
        running = sum(not each.state.is_finished() for each in self.store.trials(self.study.id))
        return running + sum(row["state"] == "RUNNING" for row in self.store.rows(tables.reruns, self.study.id))


class Database(Protocol):
    """A server that is killed too."""

    def kill(self) -> None:
        """SIGKILL."""

    def start(self) -> None:
        """Start it, and wait until it answers."""


def kill_at_random(victim: Victim, rng: random.Random, kills: int, database: Database | None = None) -> None:
    """Kill drivers, and every third time the database first, until there were so many kills or the study is over."""
    ended = KILLED
    while victim.kills < kills and ended in (KILLED, AWAY):
        pid = victim.begin()
        victim.wait_for(len(victim.lines("ended")) + rng.randint(0, 1), pid)
        if database and rng.random() < 1 / 3:
            victim.kills += 1
            database.kill()
            time.sleep(rng.uniform(0, 0.1))
            database.start()
        time.sleep(rng.uniform(0, 0.08))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        ended = victim.server.end()
        assert ended in (KILLED, AWAY, 0), victim.errors.read_text()
        victim.kills += ended == KILLED
        victim.compare()


def finish(victim: Victim) -> None:
    """Let a study come to its end."""
    ended = victim.run()
    assert ended == 0, victim.errors.read_text()
    victim.compare()


@dataclass
class Tally:
    """What kills have cost, over several studies."""

    kills: int = 0
    acknowledged: int = 0
    lost: int = 0
    redone_max: int = 0
    dup: int = 0
    zombies: int = 0

    def add(self, victim: Victim) -> None:
        """Count a study that is over."""
        self.kills += victim.kills
        self.acknowledged += len(victim.acknowledged())
        self.lost += victim.lost + victim.lost_reruns()
        self.redone_max = max(self.redone_max, victim.redone())
        self.dup += victim.duplicates()
        self.zombies += victim.zombies()

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in vars(self).items())
