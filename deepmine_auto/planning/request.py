"""What a user may ask of a search, and which wishes for workers nobody can fulfil."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepmine_auto.errors import BadInput, unknown
from deepmine_auto.executors.cores import can_keep
from deepmine_auto.storage.place import Place

EXECUTORS = ("ray", "inline")

WORKERS = ("executor", "gpus", "gpus_per_trial", "workers", "pin_workers", "address", "insecure_cluster")
"""What a specification says of where trials run."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user may ask of a search; each field is an option of `deepmine-auto search`.

    data: files (`FILE`, or `train=FILE` and so on) or one folder; none is the task's own data. unlabelled: a file of
    texts without labels, which techniques such as `pseudo_labels` learn from. paraphrases: a table of texts of the
    data, each with a `paraphrase` beside it. attention, tuning: what to choose from instead of the space's variants
    and tunings. technique: techniques to search beside the space's. backbone: backbones by name, or pretrained models:
    folders, or names of the hub. time_budget: seconds, or text such as 5m.
    storage: a SQLite file or a PostgreSQL URL without password; none is that of the environment. output: the study's
    folder. gpus: in all; None is as many as there are. objective: one or several scores or costs; trials are pruned by
    the first. limit: bounds such as `latency_ms<=5`. warm_start: earlier studies of the task, by name in this storage,
    or as STORAGE:NAME. refit: train the winner once more in the end, on the validation rows too, if time is left for
    it. unchecked: trust attention variants of others without holding them to their promises.
    """

    task: str = "sentiment"
    data: Sequence[str] | str = ()
    text_column: str | None = None
    label_column: str | None = None
    unlabelled: str | None = None
    paraphrases: str | None = None
    space: str | None = None
    attention: Sequence[str] | str = ()
    tuning: Sequence[str] | str = ()
    technique: Sequence[str] | str = ()
    backbone: Sequence[str] | str = ()
    trials: int | None = None
    time_budget: str | float | None = None
    max_gpu_hours: float | None = None
    gpus: int | None = None
    gpus_per_trial: float | None = None
    workers: int | None = None
    pin_workers: bool = False
    executor: str = "ray"
    address: str | None = None
    insecure_cluster: bool = False
    refit: bool = False
    unchecked: bool = False
    storage: str | Place | None = None
    study: str | None = None
    seed: int = 0
    objective: Sequence[str] | str = ()
    limit: Sequence[str] | str = ()
    sampler: str | None = None
    pruner: str | None = None
    warm_start: Sequence[str] | str = ()
    output: str | None = None


def check_workers(asked: Mapping[str, Any]) -> None:
    """Refuse an executor that there is not, and numbers that nothing can be. Raises BadInput."""
    if asked["executor"] not in EXECUTORS:
        raise unknown(asked["executor"], EXECUTORS, "executor")
    for name in ("gpus", "workers", "gpus_per_trial"):
        value = asked[name]
        least = 0 if name == "gpus" else 1e-9
        if value is not None and not value >= least:  # NaN too
            raise BadInput(f"--{name.replace('_', '-')} is {value}.", "Give a larger number.")
    if asked["executor"] == "inline":
        _refuse_beside_inline(asked)
    if asked.get("pin_workers") and not asked["address"] and not can_keep():
        raise BadInput("This system cannot keep workers to cores.", "Leave --pin-workers out, or search on Linux.")


def _refuse_beside_inline(asked: Mapping[str, Any]) -> None:
    one_worker = {**asked, "workers": None} if asked["workers"] == 1 else asked
    for name in ("gpus", "gpus_per_trial", "workers", "pin_workers", "address"):
        if one_worker.get(name):
            what = f"The inline executor has one worker in this process, and takes no --{name.replace('_', '-')}."
            raise BadInput(what, "Use --executor ray.")
