"""Opening a Ray: a local one that only we may use, or an existing cluster that has been asked who may use it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private.ray_logging import stdout_deduplicator
from ray._private.services import canonicalize_bootstrap_address

from deepmine_auto.errors import BadInput
from deepmine_auto.executors.gpus import gpus_here
from deepmine_auto.executors.ray import access
from deepmine_auto.executors.resources import cores_here

QUIET = {
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_THRESHOLD_S": "60",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Tune must write nothing that we would have to read, leave Ctrl-C to us, and print nothing."""

LOCAL = "local"
"""Without it Ray would join a cluster that happens to run here."""

SECRETS = ("DEEPMINE_AUTO_STORAGE", "PGPASSWORD")
"""Environment variables that hold passwords. A worker needs none: it has no connection to the database."""

WORKER_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
WORKER_ENVIRONMENT |= {"THP_MEM_ALLOC_ENABLE": "1"}  # large pages: else a step pays for each buffer page by page
WORKER_ENVIRONMENT |= dict.fromkeys(SECRETS, "")  # a cluster may have been started from a shell that had them

HANDED_ON = ("DEEPMINE_AUTO_PLUGINS",)
"""Environment variables that hold for workers too: those of a cluster have the environment of another shell."""


@contextmanager
def started(address: str | None, gpus: float | None, insecure: bool = False) -> Iterator[None]:
    """Join the cluster at `address`, or start a local Ray, and leave it at the end.

    `address` is host:port of the cluster's head, or auto. Raises BadInput, and UnsafeEnvironment where the cluster lets
    anybody in, unless `insecure`.
    """
    os.environ.update(QUIET)
    place = _found(address) if address else None
    if place:
        mode, options = access.check(place, insecure), {"address": place}
    else:
        access.ensure_token()
        mode, options = "token", _local(gpus)
    with access.authenticating(mode), _unprinted():
        try:
            _join(**options)
            yield
        finally:
            ray.shutdown()


def _found(address: str) -> str:
    """The address itself, or where Ray finds a cluster by itself."""
    if address != "auto":
        return address
    try:
        found = canonicalize_bootstrap_address(address)
    except ConnectionError:
        found = None
    if found is None:
        raise access.no_cluster(address)
    return str(found)


def _local(gpus: float | None) -> dict[str, Any]:
    """Options of a Ray of our own."""
    there = gpus_here()
    use = there if gpus is None else min(gpus, there)  # Ray would believe any number
    # Ray counts cores that this process is not bound to, and rounds the half of one that a container has to none
    return {"address": LOCAL, "include_dashboard": False, "num_cpus": cores_here(), "num_gpus": use}


@contextmanager
def _unprinted() -> Iterator[None]:
    """Keep what Ray tells of dead workers off standard output, which is for results; the ledger tells of them too."""
    before, stdout_deduplicator.skip_re = stdout_deduplicator.skip_re, re.compile("")
    try:
        yield
    finally:
        stdout_deduplicator.skip_re = before


def _join(address: str, **options: Any) -> None:
    """Join or start a Ray that inherits no secret. Raises BadInput for a cluster that we cannot join."""
    handed_on = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
    hidden = {name: os.environ.pop(name) for name in SECRETS if name in os.environ}
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL"}
    try:
        ray.init(address=address, runtime_env={"env_vars": {**WORKER_ENVIRONMENT, **handed_on}}, **quiet, **options)
    except (ConnectionError, RuntimeError) as error:
        if address == LOCAL:
            raise
        why = " ".join(str(error).split()).rstrip(".")
        what = f"The Ray cluster at {address} cannot be joined: {why}."
        raise BadInput(what, "It must have this Ray and this Python.") from error
    finally:
        os.environ.update(hidden)
