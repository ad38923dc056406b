"""How long the program makes people wait: help, import, first training step, dispatch of a trial on a warm worker.

    python benchmarks/startup.py

Absolute times depend on the machine; beside each stands what it cannot be faster than, measured in the same run: an
empty Python, torch with one step of its AdamW (which imports torch's compiler), a plain start of Ray.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from deepmine_auto.searching import search
from deepmine_auto.study.agenda import Agenda
from deepmine_auto.watcher import Watcher

SPACE = """
[plugins]
attention = ["linear"]
optimizer = ["adamw"]
schedule = ["cosine", "linear", "constant"]
pruner = "none"
[ranges]
"model/depth" = 1
"model/dim" = [32]
"training/epochs" = 1
"""
TRIALS = 8

STEP = """
import torch
weight = torch.nn.Parameter(torch.ones(3))
optimizer = torch.optim.AdamW([weight])
weight.sum().backward()
optimizer.step()
"""

RAY = "import ray; ray.init(include_dashboard=False, log_to_driver=False)"


def seconds(command: list[str], repeats: int = 3) -> float:
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        taken.append(time.perf_counter() - start)
    return median(taken)


class Clock(Watcher):
    """When the first report came, by the clock on the wall, and how long each trial took beyond its own training."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.ended: float | None = None
        self.gaps: list[float] = []

    def opened(self, agenda: Agenda, notes: tuple[str, ...], baseline: Callable[[], float | None]) -> None:
        self.agenda = agenda

    def happened(self, kind: str, text: str, trial: int | None) -> None:
        """After each trial: how long it took beyond its own training, which is dispatch, building and writing."""
        if kind != "ended" or trial is None:
            return
        now, own = time.perf_counter(), self.agenda.ledger.trials[trial].user_attrs["seconds"]
        self.gaps += [] if self.ended is None else [now - self.ended - own]
        self.ended = now

    def tick(self) -> None:
        self.first = self.first or time.time()


def searched(executor: str, place: Path) -> Clock:
    """Search with one worker. The first report stands after the first ninth of an epoch."""
    (place / "space.toml").write_text(SPACE)
    clock = Clock()
    search(clock, executor=executor, space=str(place / "space.toml"), trials=TRIALS, workers=1,
           storage=str(place / "studies.db"), output=str(place / "study"))  # fmt: skip
    return clock


def without_reuse(place: Path) -> Clock:
    """The same with a new actor for each trial, as Tune does it unless told otherwise."""
    from ray import tune

    stock = tune.TuneConfig
    tune.TuneConfig = lambda **options: stock(**{**options, "reuse_actors": False})
    return searched("ray", place)


SEARCHES = {"inline": partial(searched, "inline"), "ray": partial(searched, "ray"), "ray, new actors": without_reuse}


def clocked(name: str, begun: float) -> None:
    """Search in this process, which began then, and print two figures for the one that measures."""
    with tempfile.TemporaryDirectory() as folder:
        clock = SEARCHES[name](Path(folder))
    assert clock.first is not None
    print(clock.first - begun, median(clock.gaps))


def figures(name: str) -> tuple[float, float]:
    """Seconds from the start of a process to its first report, and seconds of a trial beyond training."""
    code = "import sys; sys.path[:0] = [sys.argv[1]]; import startup; startup.clocked(sys.argv[2], float(sys.argv[3]))"
    command = [sys.executable, "-c", code, str(Path(__file__).parent), name, str(time.time())]
    first, beyond = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:]
    return float(first), float(beyond)


def main() -> None:
    python = [sys.executable, "-c"]
    command = [str(Path(sys.executable).with_name("deepmine-auto")), "--help"]
    peers = {
        "an empty python": [*python, "pass"],
        "import deepmine_auto": [*python, "import deepmine_auto"],
        "deepmine-auto --help": command,
        "import torch": [*python, "import torch"],
        "import torch, one step of AdamW": [*python, STEP],
        "start and end of a plain Ray": [*python, RAY],
    }
    for name, each in peers.items():
        print(f"{name:<32} {seconds(each):6.2f} s", flush=True)
    beyond = {}
    for name in SEARCHES:
        first, beyond[name] = figures(name)
        print(f"{name:<16} first report {first:6.2f} s   a trial beyond training {beyond[name]:6.3f} s", flush=True)
    print(f"reused actors are handed trials {beyond['ray, new actors'] / beyond['ray']:.1f} times faster")


if __name__ == "__main__":
    main()
