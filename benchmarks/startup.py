"""How long the program makes people wait: help, import, first training step, dispatch of a trial on a warm worker.

    python benchmarks/startup.py

Absolute times depend on the machine; beside each stands what it cannot be faster than, measured in the same run: an empty
Python, the import of torch, a plain start of Ray.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
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
TRIALS = 24


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
        self.idle: dict[int, float] = {}
        self.gaps: list[float] = []

    def opened(self, agenda: Agenda, notes: tuple[str, ...], baseline: Callable[[], float | None]) -> None:
        self.agenda = agenda

    def tick(self) -> None:
        self.first = self.first or time.perf_counter() - self.begun


def first_report(executor: str, place: Path) -> tuple[float, float]:
    """Seconds to the first report, which stands after the first ninth of an epoch, and mean wall seconds a trial."""
    (place / "space.toml").write_text(SPACE)
    clock = Clock()
    storage, output = str(place / f"{executor}.db"), str(place / executor)
    found = search(clock, executor=executor, space=str(place / "space.toml"), trials=TRIALS, workers=1,
                   storage=storage, output=output).found  # fmt: skip
    assert clock.first is not None
    return clock.first, found["seconds"]


def main() -> None:
    python = [sys.executable, "-c"]
    empty, torch = seconds([*python, "pass"]), seconds([*python, "import torch"], 3)
    ray = seconds([*python, "import ray; ray.init(include_dashboard=False, log_to_driver=False)"], 3)
    command = str(Path(sys.executable).with_name("deepmine-auto"))
    print(f"an empty python                    {empty:6.2f} s")
    print(f"import deepmine_auto               {seconds([*python, 'import deepmine_auto']):6.2f} s")
    print(f"deepmine-auto --help               {seconds([command, '--help']):6.2f} s")
    print(f"import torch                       {torch:6.2f} s")
    print(f"start and end of a plain Ray       {ray:6.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        for executor in ("inline", "ray"):
            first, whole = first_report(executor, Path(folder))
            print(f"first report, {executor:<6}               {first:6.2f} s   ({TRIALS} trials and 9 reruns: {whole:.1f} s)")


if __name__ == "__main__":
    main()
