"""How many trials will run at a time, known before anything is started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from deepmine_auto.executors.gpus import gpus_here
from deepmine_auto.executors.resources import Node, cores_here, shared_out


class Crew(NamedTuple):
    """The trials that run at a time, and the GPUs that they hold in all."""

    slots: int
    gpus: float

    @property
    def gpus_per_trial(self) -> float:
        """The GPUs that one trial holds. One device is measured, whatever this is."""
        return self.gpus / self.slots


def crew_of(asked: Mapping[str, Any]) -> Crew:
    """Count what would run at a time without starting it; a cluster is taken to be like this machine, and to have the
    GPUs that are asked for. Raises BadInput for what the search would refuse."""
    if asked["executor"] == "inline":
        return Crew(1, 0.0)
    gpus = gpus_here()
    if asked["address"]:
        gpus = max(gpus, asked["gpus"] or 0)
    here = Node(float(cores_here()), gpus)
    found = shared_out([here], asked["gpus"], asked["gpus_per_trial"], asked["workers"])
    return Crew(found.slots, found.slots * found.gpus_per_trial)
