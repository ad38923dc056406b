"""What a search costs beside its training, and whether its study tells the truth.

    python benchmarks/overhead.py [tiny] [real] ["ours on Ray, 2"] ["OptunaSearch, actors reused"]

The same trials (params drawn once) run through (a) a bare loop of Optuna and torch, (b) Ray Tune with OptunaSearch and
ASHA as their documentation shows them, and with `reuse_actors`, which it leaves off, (c) ours inline and (d) ours on
Ray: 100 tiny ones, and 24 real ones on the bundled tweets. The training code is the same in all. Beside the wall time
stand the seconds that trials trained in it, over all workers, and what of each training the study shows: trials without
an end, ends that are not what happened (a trial stopped early stands as complete), and reports that its curve lacks.
The start of Ray is not counted, nor that a worker is idle at the end, while another trains the last trial; `started`
leaves out too what passes before each worker trains its first one.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from deepmine_auto import Source
from deepmine_auto.data import kept
from deepmine_auto.host import the_host
from deepmine_auto.messages import Assignment, Beat, Reported, Saved
from deepmine_auto.objectives import Objective
from deepmine_auto.planning.plan import Plan, plan
from deepmine_auto.planning.request import Request
from deepmine_auto.searching import workers
from deepmine_auto.space import Space
from deepmine_auto.storage.engine import Fence
from deepmine_auto.storage.place import place_of
from deepmine_auto.storage.store import Store
from deepmine_auto.study.agenda import Agenda
from deepmine_auto.study.budget import Budget
from deepmine_auto.study.ledger import Ledger
from deepmine_auto.study.seeding import seed_of
from deepmine_auto.training.trial import messages

TINY = """
[plugins]
attention = ["multi_head", "linear"]
optimizer = ["adamw"]
schedule = ["cosine", "linear", "constant"]
[ranges]
"model/depth" = 1
"model/dim" = [32]
"model/heads" = [2]
"training/epochs" = 1
"training/batch" = [64]
"""
REAL = """
[plugins]
attention = ["multi_head", "linear", "sliding_window"]
optimizer = ["adamw"]
schedule = ["cosine", "linear", "constant"]
[ranges]
"model/depth" = { low = 1, high = 2 }
"model/dim" = [96, 128]
"training/epochs" = 12
"training/batch" = [32]
"training/patience" = 200
"""
JOBS = {"tiny": (TINY, 100, 300), "real": (REAL, 24, None)}
SLOTS = 2
ETA, FIRST, WHOLE = 3, 111, 1000


@dataclass
class Trained:
    """What happened to one trial: its reports by share, its seconds, its own end or not, and when."""

    reports: dict[int, float]
    seconds: float
    ended: bool
    at: float = 0.0


@dataclass
class Shown:
    """What the study says of it."""

    state: str
    curve: set[int]


Outcome = tuple[float, int, Mapping[str, Trained], Mapping[str, Shown]]
"""Wall seconds, workers, and both tables by the trial's params."""


def key_of(params: Mapping[str, Any]) -> str:
    """A trial's params as one text; Tune cannot have a slash in a name."""
    return json.dumps({name.replace(".", "/"): value for name, value in params.items()}, sort_keys=True)


def draws(space: Space, count: int) -> list[dict[str, Any]]:
    """So many different params, the same each time."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found: dict[str, dict[str, Any]] = {}
    while len(found) < count:
        trial = study.ask()
        params = space.draw(lambda param, trial=trial: param.range.suggest(trial, param.name))
        found[key_of(params)] = params
    return list(found.values())


class Job:
    """One set of trials, and the folder with the data that all of them read."""

    def __init__(self, name: str, place: Path) -> None:
        toml, count, rows = JOBS[name]
        self.name, self.place, self.count = name, place, count
        (place / f"{name}.toml").write_text(toml)
        asked = {"data": [str(first_tweets(place, rows))]} if rows else {}
        self.request = Request(space=str(place / f"{name}.toml"), trials=count, study=name,
                               storage=str(place / "none.db"), **asked)  # fmt: skip
        self.plan: Plan = plan(self.request, the_host())
        self.space = Space.from_json(self.plan.spec["space"])
        self.params = draws(self.space, count)

    def folder(self, way: str) -> Path:
        """A study's folder with its rows."""
        folder = self.place / f"{self.name}-{way}"
        folder.mkdir()
        kept.keep(folder, self.plan.rows, self.plan.splits)
        return folder

    def assignment(self, number: int, params: Mapping[str, Any], folder: Path) -> Assignment:
        """What a worker of ours would get."""
        spec = self.plan.spec
        return Assignment("trial", number, 1, str(folder), spec["task"], spec["objective"], kept.SEARCH,
                          seed_of(0, "trial", number), self.space.complete(params), rungs=(111, 333))  # fmt: skip


def first_tweets(place: Path, count: int) -> Path:
    """The first bundled tweets as a csv file."""
    rows = the_host().get("task", "sentiment")().read(Source()).take(range(count))
    with open(place / "tweets.csv", "w", newline="") as opened:
        csv.writer(opened).writerows([("text", "label"), *zip(rows.inputs, rows.labels, strict=True)])
    return place / "tweets.csv"


# -- the log, which no study has a part in -----------------------------------------------------------------------------


def logged(job: Job, number: int, params: Mapping[str, Any], folder: Path) -> Iterator[Any]:
    """Train, and note each message in a file of the trial's own."""
    with open(folder / f"log-{number}.jsonl", "w") as log:
        for message in messages(job.assignment(number, params, folder), the_host()):
            if isinstance(message, Beat | Saved):  # between two reports, for which Optuna has no word
                continue
            line = {"key": key_of(params), "ended": not isinstance(message, Reported), "at": time.time()}
            if isinstance(message, Reported):
                line |= {"share": message.share, "value": message.value, "seconds": message.seconds}
            print(json.dumps(line), file=log, flush=True)
            yield message


def trained(folder: Path) -> dict[str, Trained]:
    """Read all logs."""
    found: dict[str, Trained] = {}
    for file in folder.glob("log-*.jsonl"):
        for line in map(json.loads, file.read_text().splitlines()):
            each = found.setdefault(line["key"], Trained({}, 0.0, False))
            each.ended, each.at = each.ended or line["ended"], line["at"]
            if "share" in line:
                each.reports[line["share"]], each.seconds = line["value"], line["seconds"]
    return found


def shown(study: optuna.Study) -> dict[str, Shown]:
    """What Optuna shows, by params; `curve` are the steps that it knows."""
    return {key_of(each.params): Shown(each.state.name, set(each.intermediate_values)) for each in study.trials}


# -- the ways ----------------------------------------------------------------------------------------------------------


def bare(job: Job) -> Outcome:
    """(a) Optuna's ask and tell around the training."""
    folder = job.folder("bare")
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=FIRST, reduction_factor=ETA)
    study = optuna.create_study(storage=f"sqlite:///{folder}/study.db", direction="maximize", pruner=pruner)
    for params in job.params:
        study.enqueue_trial(params)
    begun = time.perf_counter()
    for number, _ in enumerate(job.params):
        trial = study.ask()
        params = job.space.draw(lambda param, trial=trial: param.range.suggest(trial, param.name))
        for message in logged(job, number, params, folder):
            if not isinstance(message, Reported):
                study.tell(trial, message.value)
                break
            trial.report(message.value, message.share)
            if trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
    return time.perf_counter() - begun, 1, trained(folder), shown(study)


@dataclass
class Define:
    """A search space as OptunaSearch takes it, which it pickles; Tune would make a tree of names with slashes."""

    space: Space

    def __call__(self, trial: optuna.Trial) -> None:
        self.space.draw(lambda param: param.range.suggest(trial, param.name.replace("/", ".")))


def with_optuna_search(job: Job, reuse: bool) -> Outcome:
    """(b) Ray Tune's own searcher and scheduler."""
    from optuna.storages import RDBStorage
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    folder = job.folder(f"tune-{reuse}")
    url = f"sqlite:///{folder}/study.db"

    numbers = {key_of(params): number for number, params in enumerate(job.params)}

    def train(config: dict[str, Any]) -> None:
        params = {name.replace(".", "/"): value for name, value in config.items()}
        for message in logged(job, numbers[key_of(params)], params, folder):
            if isinstance(message, Reported):
                tune.report({"value": message.value, "share": message.share})

    first = [{name.replace("/", "."): value for name, value in each.items()} for each in job.params]
    searcher = OptunaSearch(space=Define(job.space), metric="value", mode="max", points_to_evaluate=first,
                            storage=RDBStorage(url), study_name="tune", seed=0)  # fmt: skip
    scheduler = ASHAScheduler(time_attr="share", metric="value", mode="max", max_t=WHOLE, grace_period=FIRST,
                              reduction_factor=ETA)  # fmt: skip
    config = tune.TuneConfig(search_alg=searcher, scheduler=scheduler, num_samples=job.count,
                             max_concurrent_trials=SLOTS, reuse_actors=reuse)  # fmt: skip
    with a_ray():
        begun = time.perf_counter()
        tune.Tuner(tune.with_resources(train, {"CPU": 1}), tune_config=config,
                   run_config=tune.RunConfig(storage_path=str(folder), verbose=0)).fit()  # fmt: skip
        wall = time.perf_counter() - begun
    seen = shown(optuna.load_study(study_name="tune", storage=url))
    return wall, SLOTS, {key: by_count(each) for key, each in trained(folder).items()}, seen


def by_count(each: Trained) -> Trained:
    """The reports numbered from 1, as Tune does."""
    return replace(each, reports=dict(enumerate(each.reports.values(), 1)))


def ours(job: Job, executor: str) -> Outcome:
    """(c) and (d): the ledger, without finals."""
    folder = job.folder(executor)
    fence = Fence()
    store = Store(place_of(str(folder / "study.db")).open_writer(fence))
    spec = {**job.plan.spec, "space": {**job.plan.spec["space"], "recipes": job.params}}
    study = store.create_study(job.name, [Objective(spec["objective"], "maximize")], str(folder), spec)
    host, asked = the_host(), {**spec["workers"], "executor": executor, "workers": SLOTS}
    plugins = host.get("sampler", "tpe")(), host.get("pruner", "asha")()
    stopped: dict[int, float] = {}

    def watch(kind: str, _text: str, number: int | None) -> None:
        if kind == "ended" and number is not None:
            stopped[number] = time.time()

    with workers(asked) as on:
        begun = time.perf_counter()
        agenda = Agenda(Ledger(store, study, fence, plugins, watch), Budget(job.count), on.slots, lambda: 0.0)
        agenda._reruns_left = list  # type: ignore[method-assign]
        on.run(agenda, host, lambda: None)
        wall = time.perf_counter() - begun
    rows = agenda.ledger.history
    whole = {
        key_of(each.params): Trained(
            {row["step"]: row["value"] for row in rows.of("trial", number).reports},
            float(rows.of("trial", number).reports[-1]["seconds"]),
            rows.of("trial", number).stopped is None,
            stopped[number],
        )
        for number, each in rows.trials.items()
    }
    return wall, on.slots, whole, shown(optuna.load_study(study_name=job.name, storage=f"sqlite:///{folder}/study.db"))


# -- the table ---------------------------------------------------------------------------------------------------------


def line(name: str, outcome: Outcome) -> str:
    """Times, and what the study does not say or says wrongly."""
    wall, slots, happened, seen = outcome
    training = sum(each.seconds for each in happened.values())
    ends = sorted(each.at for each in happened.values())[-slots:]
    idle = sum(ends[-1] - each for each in ends)
    begins = sorted(each.at - each.seconds for each in happened.values())[:slots]
    start = sum(each - (ends[-1] - wall) for each in begins)
    lost = sum(key not in seen or seen[key].state in ("RUNNING", "WAITING") for key in happened)
    wrong = sum((seen[key].state == "COMPLETE") != each.ended for key, each in happened.items() if key in seen)
    missing = sum(len(set(each.reports) - seen[key].curve) for key, each in happened.items() if key in seen)
    reports = sum(len(each.reports) for each in happened.values())
    busy = wall * slots - idle
    beside, started = (100 * (each / training - 1) for each in (busy, busy - start))
    return (f"{name:<27} {len(happened):>4} {wall:>7.1f} s {training:>8.1f} s {beside:>7.1f} % {started:>7.1f} % "
            f"{lost:>5} {wrong:>6} {missing:>6} of {reports}")  # fmt: skip


@contextmanager
def a_ray() -> Iterator[None]:
    import ray

    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    ray.init(num_cpus=SLOTS, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
             runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}})  # fmt: skip
    try:
        yield
    finally:
        ray.shutdown()


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    import torch

    torch.set_num_threads(1)
    for name in [each for each in sys.argv[1:] if each in JOBS] or JOBS:
        with tempfile.TemporaryDirectory() as folder:
            job = Job(name, Path(folder))
            print(f"\n{job.count} {name} trials".ljust(27), end="")
            print("trials      wall    training  overhead   started  lost  wrong  missing")
            ways: dict[str, Callable[[Job], Outcome]] = {
                "bare loop, 1 process": bare,
                "ours inline": partial(ours, executor="inline"),
                f"ours on Ray, {SLOTS}": partial(ours, executor="ray"),
                f"OptunaSearch, {SLOTS}": partial(with_optuna_search, reuse=False),
                "OptunaSearch, actors reused": partial(with_optuna_search, reuse=True),
            }
            only = [each for each in sys.argv[1:] if each not in JOBS]
            for title, way in ways.items():
                if not only or title in only:
                    print(line(title, way(job)), flush=True)


if __name__ == "__main__":
    main()
