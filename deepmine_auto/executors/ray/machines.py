"""The machines of the Ray that is joined, and how many trials run on them at a time."""

from __future__ import annotations

import ray

from deepmine_auto.executors.resources import Node, Resources, shared_out


def alive() -> list[Node]:
    """The machines that Ray reports."""
    each = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(float(has.get("CPU", 0.0)), int(has.get("GPU", 0))) for has in each]


def resources_of(gpus: int | None, gpus_per_trial: float | None, workers: int | None) -> Resources:
    """Share out what Ray reports. Raises BadInput if that is less than asked for."""
    return shared_out(alive(), gpus, gpus_per_trial, workers)
