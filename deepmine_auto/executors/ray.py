"""Trials on Ray Tune: a searcher and a scheduler of our own feed it from the agenda, and actors are reused.

This file alone knows Ray. Tune's own files are never read: what a resume needs is in the study database.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # read when ray.tune is imported

import ray
import torch
from ray import tune
from ray.tune.error import TuneError
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from deepmine_auto.errors import BadInput, DeepmineError
from deepmine_auto.host import the_host
from deepmine_auto.messages import Assignment, Message, from_plain, to_plain
from deepmine_auto.study.agenda import Agenda
from deepmine_auto.study.provenance import plugins_in_use
from deepmine_auto.training.trial import messages

QUIET = {
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_THRESHOLD_S": "60",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Tune must write nothing that we would have to read, leave Ctrl-C to us, and print nothing."""

PROBE_SECONDS = 5.0

WORKER_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class Resources:
    """How many workers there are, and what each may use."""

    slots: int
    gpus_per_trial: float = 0.0
    cpus_per_trial: float = 1.0

    @property
    def per_trial(self) -> dict[str, float]:
        """What Tune reserves for one trial."""
        return {"CPU": self.cpus_per_trial, **({"GPU": self.gpus_per_trial} if self.gpus_per_trial else {})}


class Worker(tune.Trainable):  # type: ignore[misc]
    """An actor that trains one assignment after the other; every step is one message."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin the first assignment."""
        torch.set_num_threads(1)
        self.reset_config(config)

    def reset_config(self, config: dict[str, Any]) -> bool:
        """Begin another assignment. Always true: Tune would fail the next trial without telling the searcher."""
        self.messages: Iterator[Message] = messages(Assignment.from_json(config["assignment"]), the_host())
        return True

    def step(self) -> dict[str, Any]:
        """Train up to the next message."""
        return {"message": json.dumps(to_plain(next(self.messages)))}


class Unshared:
    """Tune copies and pickles searchers and schedulers; ours stand for the one ledger, so they stay what they are."""

    def __deepcopy__(self, _memo: object) -> Any:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {}


class AgendaSearcher(Unshared, Searcher):  # type: ignore[misc]
    """Hands the agenda's assignments to Tune. Tune's trials have ids of their own: lost work gets a new one."""

    def __init__(self, agenda: Agenda, slots: int) -> None:
        super().__init__()
        self.agenda, self.slots = agenda, slots
        self.keys: dict[str, Any] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next assignment; None: ask again; FINISHED: all is done."""
        if len(self.agenda.running) < self.slots and (assignment := self.agenda.next()):
            self.keys[trial_id] = assignment.key
            return {"assignment": assignment.to_json()}
        return Searcher.FINISHED if self.agenda.done else None

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Hear of an end. The scheduler has already written it, unless the worker was lost."""
        key = self.keys.pop(trial_id, None)
        if error and key:
            self.agenda.lost(key, "lost", "its process ended")

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the database has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was kept."""


class AgendaScheduler(Unshared, TrialScheduler):  # type: ignore[misc]
    """Hands workers' messages to the agenda, and verdicts to Tune: a result that stops never reaches the searcher."""

    def __init__(self, searcher: AgendaSearcher, tick: Callable[[], None]) -> None:
        super().__init__()
        self.searcher, self.tick = searcher, tick

    def on_trial_result(self, _controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        """Write the message, and say whether the trial goes on."""
        key = self.searcher.keys[trial.trial_id]
        keep = self.searcher.agenda.heard(key, from_plain(json.loads(result["message"])))
        self.tick()
        return str(TrialScheduler.CONTINUE if keep else TrialScheduler.STOP)

    def choose_trial_to_run(self, controller: Any) -> Any:
        """Return a pending trial; each has a worker of its own, so the order does not matter."""
        pending = (each for each in controller.get_trials() if each.status == "PENDING")
        return next((each for each in pending if controller.trial_executor.has_resources_for_trial(each)), None)

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        """Hear of a new trial, which the searcher knows already."""

    def on_trial_error(self, controller: Any, trial: Any) -> None:
        """Hear of a lost worker, which the searcher hears of too."""

    def on_trial_complete(self, controller: Any, trial: Any, result: Mapping[str, Any]) -> None:
        """Hear of an end, which was written when its message came."""

    def on_trial_remove(self, controller: Any, trial: Any) -> None:
        """Hear that a trial was taken away before it ran."""

    def debug_string(self) -> str:
        """What Tune would print."""
        return "deepmine-auto"


# -- running ---------------------------------------------------------------------------------------------------------


def run(agenda: Agenda, resources: Resources, tick: Callable[[], None]) -> None:
    """Work until the agenda is done, on a Ray that `started` opened; `tick` is called after each message."""
    refuse_other_plugins(plugins_in_use(agenda.ledger))
    searcher = AgendaSearcher(agenda, resources.slots)
    with tempfile.TemporaryDirectory(prefix="deepmine-tune-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(Worker, resources.per_trial),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=AgendaScheduler(searcher, tick),
                num_samples=-1,
                max_concurrent_trials=resources.slots,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="study",
                storage_path=scratch,
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # ours are named by the database
            ),
        )
        try:
            tuner.fit()
        except TuneError as error:
            raise _ours(error) from error


Hashes = Mapping[tuple[str, str], str]


def refuse_other_plugins(expected: Hashes) -> None:
    """Compare the plugins of every other node with the driver's, once a node. Raises BadInput naming one that differs.

    `expected` maps the kind and name of a plugin to the hash of its file.
    """
    here = ray.get_runtime_context().get_node_id()
    others = [each for each in ray.nodes() if each["Alive"] and each["NodeID"] != here and each["Resources"].get("CPU")]
    strategies = [NodeAffinitySchedulingStrategy(each["NodeID"], soft=False) for each in others]
    hashes = ray.remote(_hashes)
    asked = [hashes.options(num_cpus=0, scheduling_strategy=each).remote(list(expected)) for each in strategies]
    for node, found in zip(others, ray.get(asked), strict=True):
        for (kind, name), hashed in sorted(expected.items()):
            if found.get((kind, name)) != hashed:
                what = f"The {kind} '{name}' on node {node['NodeManagerHostname']} is not the driver's."
                raise BadInput(what, "Install the same distribution there, then resume the study.")


def _hashes(asked: list[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """The hashes of plugins on the node that runs this; what is not there is left out."""
    offered = {kind: the_host().offered(kind) for kind, _ in asked}
    return {(kind, name): offered[kind][name].hash for kind, name in asked if name in offered[kind]}


def _ours(error: BaseException) -> BaseException:
    """What we raised inside Tune, which wraps it: it has a sentence and an exit code of its own."""
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, DeepmineError):
        inner = inner.__cause__ or inner.__context__
    return inner or error


@contextmanager
def started(address: str | None, gpus: float | None) -> Iterator[None]:
    """Join the cluster at `address`, or start a local Ray, and leave it at the end."""
    os.environ.update(QUIET)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
    if address:
        _refuse_silent(address)
        options = {"address": address, "log_to_driver": False, "logging_level": "ERROR"}
    else:
        _token()
        there = torch.cuda.device_count()
        options["num_gpus"] = there if gpus is None else min(gpus, there)  # Ray would believe any number
    try:
        ray.init(**options, runtime_env={"env_vars": WORKER_ENVIRONMENT})
    except ConnectionError as error:
        raise _no_cluster(address) from error
    try:
        yield
    finally:
        ray.shutdown()


def _refuse_silent(address: str) -> None:
    """Raise BadInput where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise _no_cluster(address) from error


def _no_cluster(address: str | None) -> BadInput:
    return BadInput(f"There is no Ray cluster at '{address}'.", "Start one, or leave --address out.")


def _token() -> None:
    """Make the token of local Ray readable by its owner alone; Ray itself would leave that to the umask."""
    place = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as opened:
            opened.write(secrets.token_hex(32))
    except FileExistsError:
        return


def resources_of(gpus: int | None, gpus_per_trial: float | None, workers: int | None, command: str) -> Resources:
    """Count what Ray reports. Raises BadInput if fewer GPUs are there than asked for."""
    found = ray.cluster_resources()
    there = int(found.get("GPU", 0))
    if gpus is not None and gpus > there:
        remedy = f"This runs: {command} --gpus {there}" if there else f"Without GPUs: {command}"
        raise BadInput(f"{gpus} GPUs were asked for, and Ray reports {there}.", remedy)
    use = there if gpus is None else gpus
    share = (gpus_per_trial or 1.0) if use else 0.0
    if share > use:
        raise BadInput(f"A trial on {share:g} GPUs never begins on {use}.", f"Give --gpus-per-trial {use} or less.")
    cores = found.get("CPU", 1.0)
    slots = int(use / share) if use else int(cores)
    slots = max(1, min(slots, workers or slots))
    return Resources(slots, share, min(1.0, cores / slots))  # with more GPUs than cores, workers share the cores
