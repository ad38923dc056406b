"""A dry run: what a search would search, and how much time, memory and disk it would take. Nothing of a study is
written."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepmine_auto.data import kept
from deepmine_auto.executors.crew import Crew, crew_of
from deepmine_auto.executors.gpus import seeing
from deepmine_auto.host import Host, the_host
from deepmine_auto.model.assemble import task_of
from deepmine_auto.planning.calibrating import Sample, megabytes, sample
from deepmine_auto.planning.plan import Plan, plan
from deepmine_auto.planning.request import Request
from deepmine_auto.scratch import scratch
from deepmine_auto.space import Space
from deepmine_auto.study.baseline import MOST_ROWS, rows_to_fit
from deepmine_auto.study.budget import REFIT_SHARE, SLACK
from deepmine_auto.study.checkpoints import LAST_KEPT
from deepmine_auto.study.closing import closing_seconds
from deepmine_auto.study.finals import FINALISTS, REPEATS
from deepmine_auto.study.forecasting import Interval, Scaled, Terms, pruned, scaled
from deepmine_auto.study.seeding import seed_of
from deepmine_auto.training.loop import device_here

BASELINE_ROWS = 4_000
"""The baseline is fitted on no more rows than these, and its time taken times as many as there are more."""

BYTES_OF_WEIGHT = 4
"""Bundles hold float32."""


@dataclass(frozen=True)
class Estimates:
    """What a search is expected to take. Seconds are on the study's own clock; MB are 1e6 bytes.

    drawn, measured: models that were drawn at random, and those of them that were tried; refused: why others cannot be
    trained, counted. trial: one that is trained to its end; worked: the mean share of that for which a trial is
    trained, as the pruner stops others. closing: what is kept for export, checks and the baseline; refit: what is kept
    for that besides, where it is asked for and has a share; whole: search, finals, closing and refit. peak_mb: what a
    model needs in a training step, with gradients, optimizer and activations; largest_mb: the most that one of the
    drawn ones needs. process_mb: the most that this process has held; a worker is such a process. disk_mb: the study's
    folder, at its fullest.
    """

    device: str
    crew: Crew
    drawn: int
    measured: int
    refused: Mapping[str, int]
    trial: Interval
    worked: float
    trials: Interval
    search: Interval
    reruns: Interval
    finals: Interval
    closing: float
    refit: float
    whole: Interval
    params_million: Interval
    peak_mb: Interval
    largest_mb: float
    process_mb: float
    checkpoint_mb: Interval
    disk_mb: Interval


@dataclass(frozen=True)
class DryRun:
    """A study that could be begun, and what it is expected to take."""

    plan: Plan
    space: Space
    estimates: Estimates


def dry_run(**fields: Any) -> DryRun:
    """Plan a search, and try some of its models for a few seconds in a temporary folder. The fields are those of
    `planning.request.Request`. Raises DeepmineError for whatever the search would refuse."""
    host, request = the_host(), Request(**fields)
    with seeing(request.gpus):
        planned = plan(request, host)
        crew = crew_of(planned.spec["workers"])
        space = Space.from_json(planned.spec["space"])
        return DryRun(planned, space, estimate(planned, space, crew, host))


def estimate(planned: Plan, space: Space, crew: Crew, host: Host) -> Estimates:
    """Measure some models of a plan's space, and reckon from them. Raises DeepmineError where none can be trained,
    and BadInput where the budget ends nothing."""
    planned.budget.refuse_endless(crew.gpus)
    spec, seconds = planned.spec, planned.budget.seconds_on(crew.gpus)
    with scratch("deepmine-dry") as folder:
        kept.keep(folder, planned.rows, planned.splits, planned.extra)
        files_mb = megabytes(folder)
        found = sample(space, spec, host, folder)
        files_mb += megabytes(folder / "prepared") * (1 + REPEATS + spec["refit"])
        closing = closing_seconds(baseline_seconds(spec["task"], host, folder), (), spec["parts"])
    saved = pruned(host.get("pruner", spec["pruner"])(), len(spec["objectives"]), seed_of(spec["seed"], "dry run"))
    saved = saved.after(found.before_task)
    costs = Costs.of(found)
    refit = _refit_seconds(spec, costs.seconds.one.middle, seconds) if spec["refit"] else 0.0
    terms = Terms(planned.budget.trials or math.inf, seconds, crew.slots, closing, saved, refit)
    return _reckoned(found, costs, terms, crew, files_mb)


def _refit_seconds(spec: Mapping[str, Any], trial: float, whole: float) -> float:
    """What is kept for a refit of a trial that takes so long, if it is best at its end."""
    more = 1 + spec["parts"]["validation"] / spec["parts"]["train"]
    seconds = SLACK * more * trial + closing_seconds(0.0, (), spec["parts"])
    return seconds if seconds <= REFIT_SHARE * whole else 0.0


def baseline_seconds(task_name: str, host: Host, folder: Path) -> float:
    """How long fitting the classical baseline takes, reckoned from some of the rows."""
    task = task_of(task_name, {}, host)
    train, validation = (kept.rows_of(folder, kept.SEARCH, part) for part in ("train", "validation"))
    some = rows_to_fit(task, train, BASELINE_ROWS)
    prepared = task.prepare(some)
    begun = time.perf_counter()
    task.baseline(some, validation, prepared)
    return (time.perf_counter() - begun) * min(len(train), MOST_ROWS) / len(some)


class Costs(NamedTuple):
    """What models cost: seconds of a trial that is trained to its end, MB in a training step, MB of a checkpoint."""

    seconds: Scaled
    peak_mb: Scaled
    checkpoint_mb: Scaled

    @classmethod
    def of(cls, found: Sample) -> Costs:
        """Expect of a trial's time a share for each step and one of its forward passes, of memory what is needed before
        an optimizer keeps anything, of a checkpoint one for each parameter; those that move may have more."""
        sized, measured = found.sized, found.measured
        time_NF = np.array([(1.0, each.steps, each.forwards_seconds) for each in sized])
        memory_NF = np.array([(each.peak_mb, each.moving) for each in sized])
        disk_NF = np.array([(each.parameters, each.moving) for each in sized])
        return cls(
            scaled(time_NF, {at: each.seconds for at, each in measured.items()}),
            scaled(memory_NF, {at: each.peak_mb for at, each in measured.items()}),
            scaled(disk_NF, {at: each.checkpoint_mb for at, each in measured.items()}),
        )


def _reckoned(found: Sample, costs: Costs, terms: Terms, crew: Crew, files_mb: float) -> Estimates:
    likely = terms.course(costs.seconds.one.middle).trials
    courses = [terms.course(each) for each in costs.seconds.mean_of(likely)]
    parameters = np.array([each.parameters for each in found.sized])
    return Estimates(
        device=device_here().type,
        crew=crew,
        drawn=found.drawn,
        measured=len(found.measured),
        refused=found.refused,
        trial=costs.seconds.one,
        worked=terms.pruned.work(likely) / max(1, likely),
        trials=Interval.over(each.trials for each in courses),
        search=Interval.over(each.search for each in courses),
        reruns=Interval.over(each.reruns for each in courses),
        finals=Interval.over(each.finals for each in courses),
        closing=terms.closing,
        refit=terms.refit,
        whole=Interval.over(each.whole for each in courses),
        params_million=Interval.of(parameters / 1e6),
        peak_mb=costs.peak_mb.one,
        largest_mb=float(max(costs.peak_mb.expected_N.max(), *(each.peak_mb for each in found.measured.values()))),
        process_mb=_process_mb(),
        checkpoint_mb=costs.checkpoint_mb.one,
        disk_mb=_disk(found, costs.checkpoint_mb.one, crew.slots, files_mb, bundles=1 + bool(terms.refit)),
    )


def _disk(found: Sample, checkpoint: Interval, slots: int, files_mb: float, bundles: int = 1) -> Interval:
    """The study's folder at its fullest: its files, checkpoints of what runs, of finalists and reruns, the bundles."""
    running = slots * (LAST_KEPT + 1) + FINALISTS
    reruns = FINALISTS * REPEATS
    unswept = max(each.evaluations for each in found.sized)  # its reports' until any other one ends
    counts = running, running + reruns, running + reruns + unswept
    bundle = bundles * max(each.parameters for each in found.sized) * BYTES_OF_WEIGHT / 1e6
    low, middle, high = (count * size for count, size in zip(counts, checkpoint, strict=True))
    return Interval(low, middle, high).then(lambda each: each + files_mb + bundle)


def _process_mb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
