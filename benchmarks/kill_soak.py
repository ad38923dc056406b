"""Kill drivers, with --postgresql servers and with --workers Ray's workers too, at random times; resume; and say in one
line what that has cost.

    python benchmarks/kill_soak.py [--kills 200] [--workers 50] [--postgresql] [--seed 0]

The kills of workers are among the kills. Trainings of drivers take 10 ms a step and write real checkpoints; workers
train on tiny texts. What was acknowledged stands in a log outside the database. Asked: lost=0, dup=0 and zombies=0
(trials and reruns), redone_max<=1 (checkpoint intervals). With --postgresql, every second study of killed drivers is on
a server of its own.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Any

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "kill")]

TRIALS = 50
STEP_SECONDS = 0.01
MOST_KILLS_A_STUDY = 20


@contextmanager
def server_of(asked: bool) -> Iterator[Any]:
    """A PostgreSQL server, or nothing."""
    if not asked:
        yield None
        return
    from postgres import Server, programs

    found = programs()
    if found is None:
        sys.exit("PostgreSQL is not installed: no initdb in PATH or /usr/lib/postgresql/*/bin.")
    server = Server(found, durable=True)
    try:
        yield server
    finally:
        server.stop()


# -- workers -----------------------------------------------------------------------------------------------------------


class Reaper(Thread):
    """Kills one of this driver's Ray workers every few seconds."""

    def __init__(self, rng: random.Random, mark: str, kills: int) -> None:
        super().__init__(daemon=True)
        self.rng, self.mark, self.left, self.kills, self.over = rng, mark, kills, 0, Event()

    def run(self) -> None:
        from cluster import marked

        while self.left and not self.over.wait(self.rng.uniform(1.0, 3.0)):
            workers = [each for each in marked(self.mark) if "ray::Worker" in Path(f"/proc/{each}/cmdline").read_text()]
            if workers:
                os.kill(self.rng.choice(workers), signal.SIGKILL)
                self.left, self.kills = self.left - 1, self.kills + 1


def kill_workers(rng: random.Random, kills: int, tally: Any) -> None:
    """Search on tiny texts with two workers, and kill them."""
    from cluster import agenda_of, study_in

    from deepmine_auto.executors.ray import Resources, run, started

    mark = f"soak-{os.getpid()}"
    os.environ["DEEPMINE_SOAK"] = mark
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "acknowledged.log", "w+") as log:
        desk, study = study_in(Path(folder))
        reaper, trials = Reaper(rng, mark, kills), 3 * kills
        with started(None, None):
            agenda = agenda_of(desk, study, trials, slots=2)
            agenda.ledger.watch = lambda kind, _text, number: (
                print(number, file=log, flush=True) if kind == "ended" else None
            )
            reaper.start()
            run(agenda, Resources(2), lambda: None)
            reaper.over.set()
        log.seek(0)
        tally_workers(tally, reaper.kills, {int(line) for line in log}, trials, desk, study)


def tally_workers(tally: Any, kills: int, acknowledged: set[int], trials: int, desk: Any, study: Any) -> None:
    """Count what is missing, stands twice or still runs, and the checkpoint intervals that were trained again."""
    from deepmine_auto.storage import tables

    rows = desk.trials(study)
    finished = {each.number for each in rows if each.state.is_finished()}
    tally.kills += kills
    tally.acknowledged += len(acknowledged)
    tally.lost += len(acknowledged - finished)
    tally.dup += abs(len(rows) - trials) + len(rows) - len({each.number for each in rows})
    tally.zombies += len(rows) - len(finished)
    known: dict[int, dict[int, bool]] = defaultdict(dict)
    again: dict[tuple[int, int], list[bool]] = defaultdict(list)
    for row in desk.store.rows(tables.reports, study.id):
        if row["step"] in known[row["number"]]:
            again[row["number"], row["attempt"]].append(known[row["number"]][row["step"]])
        known[row["number"]][row["step"]] = row["checkpoint"] is not None
    tally.redone_max = max([tally.redone_max, *(max(1, sum(each)) for each in again.values())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--workers", type=int, default=0, help="how many of the kills are of Ray's workers")
    parser.add_argument("--postgresql", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()

    from driving import Tally, Victim, finish, fork_server, kill_at_random
    from fakes import Desk

    from deepmine_auto.storage.place import place_of

    rng, tally = random.Random(asked.seed), Tally()
    if asked.workers:
        kill_workers(rng, asked.workers, tally)
        print(tally, file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder, fork_server() as drivers, server_of(asked.postgresql) as database:
        for number in count():
            if tally.kills >= asked.kills:
                break
            own = database if number % 2 else None
            place = place_of(own.url(own.new_database())) if own else None
            home = Path(folder) / str(number)
            home.mkdir()
            victim = Victim(Desk(home, place=place), drivers, f"study-{number}", TRIALS, STEP_SECONDS)
            kill_at_random(victim, rng, min(MOST_KILLS_A_STUDY, asked.kills - tally.kills), own)
            finish(victim)
            tally.add(victim)
            print(tally, file=sys.stderr)
    print(tally)
    sys.exit(bool(tally.lost or tally.dup or tally.zombies or tally.redone_max > 1))


if __name__ == "__main__":
    main()
