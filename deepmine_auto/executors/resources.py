"""How many trials run at a time, and what each of them is given: counted node by node, as a trial does not span two."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from deepmine_auto.errors import BadInput

ALMOST = 1e-9
"""Keeps a third of a GPU from being counted as a little more than that."""

CONTROL_GROUP = Path("/sys/fs/cgroup")
QUOTAS = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))
"""Where a container of control groups 2, or 1, has its quota and the period that this is of."""


@dataclass(frozen=True)
class Resources:
    """How many workers there are, and what each may use."""

    slots: int
    gpus_per_trial: float = 0.0
    cpus_per_trial: float = 1.0
    pinned: bool = False

    @property
    def per_trial(self) -> dict[str, float]:
        """What Tune reserves for one trial."""
        return {"CPU": self.cpus_per_trial, **({"GPU": self.gpus_per_trial} if self.gpus_per_trial else {})}

    @property
    def processes(self) -> int:
        """Processes that share a trial's batches: one a GPU."""
        return max(1, int(self.gpus_per_trial))

    @property
    def cores(self) -> int:
        """The cores that a worker keeps to, one a process; 0 where the system chooses."""
        return self.processes if self.pinned else 0


@dataclass(frozen=True)
class Node:
    """What one machine has."""

    cpus: float
    gpus: int

    def fit(self, share: float) -> int:
        """How many trials on `share` GPUs run here: on fewer than one, each keeps to one GPU; without, one a core."""
        if not share:
            return int(self.cpus)
        return int(self.gpus / share + ALMOST) if share >= 1 else self.gpus * int(1 / share + ALMOST)


def cores_here() -> int:
    """The processor cores that this process may use: those that it is bound to, or what a container has of them."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(bound, _quota())))


def _quota() -> float:
    """How many cores a container may use at a time; infinite where that is not limited."""
    for names in QUOTAS:
        with suppress(OSError, ValueError):  # the other version of control groups, or no limit: max
            quota, period = map(int, " ".join((CONTROL_GROUP / each).read_text() for each in names).split())
            return quota / period if quota > 0 else math.inf
    return math.inf


def shared_out(nodes: Sequence[Node], gpus: int | None, gpus_per_trial: float | None, workers: int | None) -> Resources:
    """Share out what these machines have. Raises BadInput if that is less than asked for."""
    there = sum(each.gpus for each in nodes)
    if gpus is not None and gpus > there:
        remedy = f"The same with --gpus {there} runs." if there else "The same without --gpus runs, on its CPU cores."
        raise BadInput(f"{gpus} GPUs were asked for, and Ray reports {there}.", remedy)
    if gpus_per_trial and gpus is None and not there:
        what = f"A trial on {gpus_per_trial:g} GPUs never begins: no GPU is seen."
        raise BadInput(what, "Give --gpus 0 and it runs on CPU cores; a new study needs no --gpus-per-trial then.")
    use = there if gpus is None else gpus
    share = (gpus_per_trial or 1.0) if use else 0.0
    _refuse_share(share, use, max(each.gpus for each in nodes))
    fitting = [each.fit(share) for each in nodes]
    slots = min(sum(fitting), Node(0.0, use).fit(share)) if use else sum(fitting)
    slots = max(1, min(slots, workers or slots))
    return Resources(slots, share, _cpus(nodes, fitting, slots))


def _refuse_share(share: float, use: int, largest: int) -> None:
    if share > use:
        raise BadInput(f"A trial on {share:g} GPUs never begins on {use}.", f"Give --gpus-per-trial {use} or less.")
    if share > largest:
        what = f"A trial on {share:g} GPUs never begins: no node has more than {largest}."
        raise BadInput(what, f"Give --gpus-per-trial {largest} or less.")
    if share > 1 and share != int(share):
        raise BadInput(f"A trial cannot have {share:g} GPUs.", "Give a whole number, or a share of one GPU.")


def _cpus(nodes: Sequence[Node], fitting: list[int], slots: int) -> float:
    """CPUs a trial: one, or less where a node has more trials than cores."""
    shares = [node.cpus / min(count, slots) for node, count in zip(nodes, fitting, strict=True) if count]
    return min([1.0, *shares])
