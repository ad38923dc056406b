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

from deepmine_auto.searching import Watcher, search
from deepmine_auto.study.agenda import Agenda

SPACE = """
[plugins]
attention = ["linear"]
optimizer = ["adamw"]
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


def seconds(command: list[str], repeats: int = 5) -> float:
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        taken.append(time.perf_counter() - start)
    return median(taken)


class Clock(Watcher):
    """When things happened, in seconds since the search was asked for."""

    def __init__(self) -> None:
        self.begun = time.perf_counter()
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
        self.first = self.first or time.perf_counter() - self.begun


def measured(executor: str, place: Path) -> Clock:
    """Search with one worker. The first report stands after the first ninth of an epoch."""
    (place / "space.toml").write_text(SPACE)
    clock = Clock()
    name = f"{executor}-{len(list(place.glob('*.db')))}"
    search(clock, executor=executor, space=str(place / "space.toml"), trials=TRIALS, workers=1,
           storage=str(place / f"{name}.db"), output=str(place / name))  # fmt: skip
    return clock


def without_reuse(place: Path) -> Clock:
    """The same with a new actor for each trial, as Tune does it unless told otherwise."""
    from ray import tune

    stock = tune.TuneConfig
    tune.TuneConfig = lambda **options: stock(**{**options, "reuse_actors": False})
    try:
        return measured("ray", place)
    finally:
        tune.TuneConfig = stock


SEARCHES = {"inline": partial(measured, "inline"), "ray": partial(measured, "ray"), "ray, new actors": without_reuse}


def main() -> None:
    python = [sys.executable, "-c"]
    empty, torch, step = (seconds([*python, code], 3) for code in ("pass", "import torch", STEP))
    ray = seconds([*python, "import ray; ray.init(include_dashboard=False, log_to_driver=False)"], 3)
    command = str(Path(sys.executable).with_name("deepmine-auto"))
    print(f"an empty python                    {empty:6.2f} s")
    print(f"import deepmine_auto               {seconds([*python, 'import deepmine_auto']):6.2f} s")
    print(f"deepmine-auto --help               {seconds([command, '--help']):6.2f} s")
    print(f"import torch                       {torch:6.2f} s")
    print(f"import torch, one step of AdamW    {step:6.2f} s")
    print(f"start and end of a plain Ray       {ray:6.2f} s")
    clocks = {}
    for name, search_of in SEARCHES.items():
        with tempfile.TemporaryDirectory() as folder:
            clocks[name] = clock = search_of(Path(folder))
        beyond = f"a trial beyond training {median(clock.gaps):6.3f} s"
        print(f"{name:<16} first report {clock.first:6.2f} s   {beyond}", flush=True)
    ratio = median(clocks["ray, new actors"].gaps) / median(clocks["ray"].gaps)
    print(f"reused actors are handed trials {ratio:.1f} times faster")


if __name__ == "__main__":
    main()
