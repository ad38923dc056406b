"""What the ledger takes: a report with its verdict, a proposal among many rows, and the driver's memory for rows.

    python benchmarks/ledger.py [--postgresql] [SPACE]

Synthetic trials of the shipped sentiment space, or of another one; beside each figure its peer in the same run:
Optuna's own calls on stock SQLite, and its default TPE on a study in memory that holds the same trials.
"""

from __future__ import annotations

import gc
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import optuna
from kill_soak import server_of
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import insert, select

from deepmine_auto.host import the_host
from deepmine_auto.messages import Reported
from deepmine_auto.objectives import Objective
from deepmine_auto.planning.plan import plan
from deepmine_auto.planning.request import Request
from deepmine_auto.space import Space
from deepmine_auto.storage.engine import Fence
from deepmine_auto.storage.place import Place, place_of
from deepmine_auto.storage.store import Store, StudyRow
from deepmine_auto.study.ledger import Ledger
from deepmine_auto.study.names import distribution_of

REPORTS, ASKS = 400, 40
ROWS = (1000, 5000, 10_000)
POINTS = 9
SPACE = next((each for each in sys.argv[1:] if not each.startswith("-")), None) if __name__ == "__main__" else None


class Desk:
    """One database, and studies in it."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.place, self.folder, self.fence = place, folder, Fence()
        self.store = Store(place.open_writer(self.fence))
        self.spec = plan(Request(storage=str(folder / "none.db"), trials=10, space=SPACE), the_host()).spec
        self.space = Space.from_json(self.spec["space"])

    def begin(self, name: str) -> StudyRow:
        """A new study; the driver before is gone."""
        self.fence.study_id = None
        (self.folder / name).mkdir()
        objective = Objective(self.spec["objective"], "maximize")
        return self.store.create_study(name, [objective], str(self.folder / name), dict(self.spec))

    def ledger(self, study: StudyRow) -> Ledger:
        """A driver."""
        self.fence.study_id = None
        host = the_host()
        return Ledger(
            self.store, study, self.fence, (host.get("sampler", "tpe")(), host.get("pruner", "asha")()), quiet
        )


def quiet(*_: object) -> None:
    """Watch nothing."""


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def timed(work: Callable[[], object]) -> float:
    """Milliseconds that it takes."""
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def shown(name: str, own: Sequence[float], peer: Sequence[float], peers_name: str) -> None:
    """Median and 95th percentile of both, and the ratio of the latter."""
    mine, theirs = np.percentile(own, 95), np.percentile(peer, 95)
    print(
        f"{name:<34} p50 {np.median(own):>7.1f} ms  p95 {mine:>7.1f} ms   "
        f"{peers_name}: p95 {theirs:.1f} ms, ratio {mine / theirs:.2f}",
        flush=True,
    )


# -- a report and its verdict ------------------------------------------------------------------------------------------


def reports(desk: Desk) -> list[float]:
    """Milliseconds of each: a row, a point of the curve, a verdict, all brought to the disk."""
    ledger, taken = desk.ledger(desk.begin("reports")), []
    rng, decide = random.Random(0), partial(ledger.report, out_of_time=False)
    while len(taken) < REPORTS:
        assignment = ledger.ask()
        assert assignment is not None
        for step in range(1, POINTS + 1):
            value, path = rng.random(), f"checkpoints/trial-{assignment.number:05d}/attempt-1/step-{step:07d}"
            share = round(1000 * step / POINTS)
            message = Reported(step, share, value, {"macro_f1": value, "accuracy": value}, path, path, float(step))
            kept: list[bool] = []
            taken.append(timed(lambda a=assignment, m=message, k=kept: k.append(decide(a, m))))
            if not kept[0]:
                taken.pop()  # it holds the end of a trial too
                break
    return taken


def stock_reports(folder: Path) -> list[float]:
    """The same through Optuna on stock SQLite."""
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    study = optuna.create_study(storage=f"sqlite:///{folder}/stock.db", direction="maximize", pruner=pruner)
    rng, taken = random.Random(0), []

    def report(trial: optuna.Trial, step: int) -> bool:
        trial.report(rng.random(), step)
        return trial.should_prune()

    while len(taken) < REPORTS:
        trial = study.ask()
        for step in range(1, POINTS + 1):
            stops: list[bool] = []
            taken.append(timed(lambda t=trial, s=step, k=stops: k.append(report(t, s))))
            if stops[0]:
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, rng.random())
    return taken


# -- a proposal among many rows ----------------------------------------------------------------------------------------


def rows_of(space: Space, count: int) -> list[FrozenTrial]:
    """Finished trials: a third complete, the others pruned, as a search leaves them."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=count))
    ranges = {each.name: distribution_of(each.range) for each in space.params}
    rng, made = random.Random(count), []
    for number in range(count):
        trial = study.ask()
        params = space.draw(lambda param, trial=trial: param.range.suggest(trial, param.name))
        points = POINTS if number % 3 == 0 else 1
        curve = {step: rng.random() for step in range(1, points + 1)}
        state = TrialState.COMPLETE if number % 3 == 0 else TrialState.PRUNED
        values = max(curve.values()) if state == TrialState.COMPLETE else curve[points]
        made.append(
            create_trial(
                state=state,
                params=params,
                distributions={name: ranges[name] for name in params},
                intermediate_values=curve,
                value=values,
                user_attrs={"cause": "budget" if points == POINTS else "pruned"},
            )
        )
    return made


def write(desk: Desk, made: Sequence[FrozenTrial], times: int) -> StudyRow:
    """A study that holds the trials so many times: written once by Optuna, then copied within the database."""
    study = desk.begin(f"rows-{len(made) * times}")
    ids = [desk.store.storage.create_new_trial(study.id, each) for each in made]
    with desk.store.engine.begin() as connection:
        for table in (each for each in models.BaseModel.metadata.sorted_tables if "trial_id" in each.c):
            own = table.primary_key.columns.keys()[0]
            kept = [each for each in table.c if each.name in ("trial_id", "number") or each.name != own]
            for again in range(1, times):
                far = len(made) * again
                moved = [each + far if each.name in ("trial_id", "number") else each for each in kept]
                rows = select(*moved).where(table.c.trial_id.between(ids[0], ids[-1]))
                connection.execute(insert(table).from_select(kept, rows))
    return study


def asks(desk: Desk, made: Sequence[FrozenTrial], times: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each ask with its row, and of the default TPE's."""
    ledger = desk.ledger(write(desk, made, times))
    own = [timed(ledger.ask) for _ in range(ASKS)]
    stock = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    stock.add_trials([each for _ in range(times) for each in made])

    def ask() -> None:
        trial = stock.ask()
        desk.space.draw(lambda param: param.range.suggest(trial, param.name))

    return own, [timed(ask) for _ in range(ASKS // 4)]


def megabytes(desk: Desk, count: int) -> float:
    """What a driver of its own process holds after it has read so many rows and proposed some trials."""
    code = "import sys; sys.path[:0] = [sys.argv[1]]; import ledger; ledger.hold(*sys.argv[2:])"
    here, named = str(Path(__file__).parent), f"rows-{count}"
    run = [sys.executable, "-c", code, here, str(desk.place), str(desk.folder), named]
    return float(subprocess.run(run, check=True, capture_output=True, text=True).stdout)


def hold(storage: str, folder: str, name: str) -> None:
    """Be that driver, and print its megabytes."""
    desk = Desk(place_of(storage), Path(folder))
    ledger = desk.ledger(desk.store.study(name))
    for _ in range(5):
        ledger.ask()
    gc.collect()
    print(resident() / 1e6)


def main(postgresql: bool) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as place, server_of(postgresql) as server:
        folder = Path(place)
        stock, desks = stock_reports(folder), [Desk(place_of(str(folder / "studies.db")), folder)]
        if server:
            (folder / "postgresql").mkdir()
            desks.append(Desk(place_of(server.url(server.new_database())), folder / "postgresql"))
        for name, desk in zip(("SQLite", "PostgreSQL"), desks, strict=False):
            shown(f"report + decide, {name}", reports(desk), stock, "Optuna on stock SQLite")
        made, desk = rows_of(desks[0].space, ROWS[0]), desks[0]
        for count in ROWS:
            own, peer = asks(desk, made, count // ROWS[0])
            shown(f"ask at {count:,} rows", own, peer, "default TPE in memory")
        held = {count: megabytes(desk, count) for count in ROWS}
        for less, more in pairwise(ROWS):
            slope = 1000 * (held[more] - held[less]) / (more - less)
            print(f"{'driver memory':<34} {slope:.1f} MB for 1,000 rows, from {less:,} to {more:,}", flush=True)


if __name__ == "__main__":
    main("--postgresql" in sys.argv)
