"""Kill drivers, and with --postgresql servers too, at random times; resume; and say in one line what that has cost.

Run as `python benchmarks/kill_soak.py [--kills 200] [--postgresql] [--seed 0]`. Trainings take 10 ms a step and write
real checkpoints; what was acknowledged stands in a log outside the database. Asked: lost=0, dup=0 and zombies=0 (trials
and reruns), redone_max<=1 (checkpoint intervals). With --postgresql, every second study is on a server of its own.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
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
    server = Server(found)
    try:
        yield server
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--postgresql", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()

    from driving import Tally, Victim, finish, fork_server, kill_at_random
    from fakes import Desk

    from deepmine_auto.storage.place import place_of

    rng, tally = random.Random(asked.seed), Tally()
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
