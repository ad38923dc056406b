"""What the models of a search space cost on this machine: some are drawn at random, and trained for a few steps."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, TypeVar

import numpy as np
import optuna
import torch

from deepmine_auto.data.kept import SEARCH
from deepmine_auto.errors import DeepmineError
from deepmine_auto.executors.inline import one_thread
from deepmine_auto.host import Host
from deepmine_auto.messages import Assignment
from deepmine_auto.space import Space, Value
from deepmine_auto.study.seeding import seed_of
from deepmine_auto.training import checkpoint
from deepmine_auto.training.batching import Columns
from deepmine_auto.training.ends import out_of_memory
from deepmine_auto.training.loop import Training
from deepmine_auto.training.measure import costs_of
from deepmine_auto.training.outputs import outputs_of
from deepmine_auto.training.state import collect
from deepmine_auto.training.step import take_step
from deepmine_auto.training.trial import let_go

T = TypeVar("T")

DRAWN, FEWEST_DRAWN, DRAWING_SECONDS = 40, 8, 6.0
"""So many models are drawn, or fewer where that takes longer."""

FEWEST_MEASURED, MEASURING_SECONDS = 3, 8.0
"""Of these so many are measured at least, and more until the seconds are over."""

FEWEST_STEPS, STEPPING_SECONDS = 3, 0.35
"""A measurement takes so many steps, of which the first only warms up, and more until the seconds are over."""

MOST_TIMED = 512
"""The time of an evaluation is measured on no more rows than these."""


class Sized(NamedTuple):
    """What is known of a drawn model before it is trained: its params, how long a trial trains it, the number of its
    parameters and of those that move, the seconds of a forward pass of a batch, and the peak memory of a training step
    in MB (1e6 bytes), apart from what an optimizer keeps; how often a batch was halved before it fitted; how many of
    the steps come before those of the task."""

    params: Mapping[str, Value]
    steps: int
    evaluations: int
    rows_judged: int
    parameters: int
    moving: int
    forward_seconds: float
    peak_mb: float
    halvings: int = 0
    before: int = 0

    @property
    def forwards_seconds(self) -> float:
        """The seconds of the forward passes of a whole trial."""
        return self.steps * self.forward_seconds


class Measured(NamedTuple):
    """What one trial costs: seconds if it is trained to its end, peak memory of a training step in MB, and a
    checkpoint's size in MB. It is reckoned from a few steps, one evaluation and one checkpoint."""

    seconds: float
    peak_mb: float
    checkpoint_mb: float


@dataclass(frozen=True)
class Sample:
    """How many models were drawn, those that can be built, the costs of some of these by their place, and why others
    cannot be built or trained, counted."""

    drawn: int
    sized: list[Sized]
    measured: dict[int, Measured]
    refused: Mapping[str, int]

    @property
    def before_task(self) -> float:
        """The mean share of its steps that a trial takes before those of the task, where nothing stops it."""
        return fmean(each.before / each.steps for each in self.sized)


def sample(space: Space, spec: Mapping[str, Any], host: Host, folder: Path) -> Sample:
    """Draw, size and measure models of a space, in a folder that has the study's rows (`kept.keep`).

    The smallest and the largest are measured first, then what lies between. Raises DeepmineError where no model can be
    trained at all.
    """
    bench = Bench(spec, host, folder)
    params = drawn(space, DRAWN, seed_of(spec["seed"], "dry run"))
    with one_thread():
        first = bench.size(params[0])  # it waits for the rows to be prepared, which is done once
        others = for_a_while(params[1:], FEWEST_DRAWN - 1, DRAWING_SECONDS)
        sized = present([first, *map(bench.size, others)])
        count = len(sized) + bench.refused.total()
        sized.sort(key=lambda each: each.forwards_seconds)
        places = for_a_while(outwards(len(sized)), FEWEST_MEASURED, MEASURING_SECONDS)
        found = {place: bench.measure(sized[place]) for place in places}
    measured = {place: each for place, each in found.items() if each is not None}
    if not measured:
        reason, _ = bench.refused.most_common(1)[0]
        raise DeepmineError(f"No model of {count} could be trained: {reason}")
    return Sample(count, sized, measured, bench.refused)


def paces(space: Space, spec: Mapping[str, Any], host: Host, folder: Path) -> list[float]:
    """The seconds for which the first models of a search, its recipes, learn from a row of those kept in a folder."""
    bench = Bench(spec, host, folder)
    params = drawn(space, FEWEST_MEASURED, seed_of(spec["seed"], "pace"))
    with one_thread():
        return present(map(bench.pace, params))


def drawn(space: Space, count: int, seed: int) -> list[dict[str, Value]]:
    """Complete params: the recipes that a search tries first, and then at random."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    for recipe in space.recipes:
        study.enqueue_trial(dict(recipe))
    return [_drawn(space, study.ask()) for _ in range(count)]


def _drawn(space: Space, trial: optuna.Trial) -> dict[str, Value]:
    return space.complete(space.draw(lambda param: param.range.suggest(trial, param.name)))


def for_a_while(items: Iterable[T], fewest: int, seconds: float) -> Iterator[T]:
    """The first items, and more of them until the seconds are over."""
    begun = time.monotonic()
    for at, each in enumerate(items):
        if at >= fewest and time.monotonic() - begun > seconds:
            return
        yield each


def outwards(count: int) -> list[int]:
    """All places of `count`: both ends first, then the middle, then the middle of each half, and so on."""
    parts = (2**each for each in range(count.bit_length() + 1))
    return list(dict.fromkeys(round(at * (count - 1) / of) for of in parts for at in range(of + 1))) if count else []


def present(found: Iterable[T | None]) -> list[T]:
    """What is not None."""
    return [each for each in found if each is not None]


# -- one model -------------------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """Where models are tried: a folder with a study's rows, and nothing else of a study."""

    spec: Mapping[str, Any]
    host: Host
    folder: Path
    refused: Counter[str] = field(default_factory=Counter)

    def size(self, params: Mapping[str, Value]) -> Sized | None:
        """Build a model and count; None, and a reason more, where it cannot be built."""
        return self._tried(lambda halvings: self._sized(params, halvings), params)

    def measure(self, sized: Sized) -> Measured | None:
        """Train a model for a few steps; None, and a reason more, where that fails."""
        return self._tried(lambda halvings: self._measured(sized, halvings), sized.params, sized.halvings)

    def pace(self, params: Mapping[str, Value]) -> float | None:
        """The seconds for which a model learns from a row; None, and a reason more, where it cannot."""
        return self._tried(lambda halvings: self._paced(params, halvings), params)

    def _tried(self, work: Callable[[int], T], params: Mapping[str, Any], halvings: int = 0) -> T | None:
        """Work, and as a search does again with halved batches as long as they do not fit into memory."""
        try:
            return work(halvings)
        except Exception as error:  # plugins may raise anything; a search goes on without these models too
            short = out_of_memory(error) and params["training/batch"] >> halvings > 1
            why = str(error) if isinstance(error, DeepmineError) else f"{type(error).__name__}: {error}"
        if short:  # out here the error is gone, and with it the memory that its frames held
            let_go()
            return self._tried(work, params, halvings + 1)
        self.refused[why] += 1
        return None

    def _training(self, params: Mapping[str, Value], halvings: int) -> Training:
        assignment = Assignment(
            kind="trial",
            number=0,
            attempt=0,
            folder=str(self.folder),
            task=self.spec["task"],
            objective=self.spec["objective"],
            split=SEARCH,
            seed=seed_of(self.spec["seed"], "dry run"),
            params=params,
            halvings=halvings,
        )
        return Training(assignment, self.host)

    def _sized(self, params: Mapping[str, Value], halvings: int) -> Sized:
        training = self._training(params, halvings)
        weights = list(training.model.parameters())
        return Sized(
            params=params,
            steps=training.before + training.steps,
            evaluations=len(training.recipe.evaluations(training.steps, len(training.validation))),
            rows_judged=len(training.validation),
            parameters=sum(each.numel() for each in weights),
            moving=sum(each.numel() for each in weights if each.requires_grad),
            forward_seconds=_forward_seconds(training),
            peak_mb=costs_of(training)["peak_mb"],
            halvings=halvings,
            before=training.before,
        )

    def _paced(self, params: Mapping[str, Value], halvings: int) -> float:
        training = self._training(params, halvings)
        training.progress.step = training.before
        return _step_seconds(training) / training.recipe.batch

    def _measured(self, sized: Sized, halvings: int) -> Measured:
        beginning, training = _timed(lambda: self._training(sized.params, halvings))
        stepping = _steps_seconds(training)
        looking, costs = _timed(lambda: costs_of(training))
        some = _some_of(training.validation)
        judging, _ = _timed(lambda: outputs_of(training.model, training.evaluated(), some, training.device))
        place = self.folder / "checkpoint"
        saving, _ = _timed(lambda: checkpoint.save(place, *collect(training)))
        evaluation = judging * sized.rows_judged / len(some) + saving
        seconds = beginning + looking + stepping + sized.evaluations * evaluation
        return Measured(seconds, costs["peak_mb"], megabytes(place))


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    begun = time.perf_counter()
    done = work()
    return time.perf_counter() - begun, done


def _steps_seconds(training: Training) -> float:
    """The time of all steps: those before the task may take another than those of the task."""
    before = training.before * _step_seconds(training) if training.before else 0.0
    training.progress.step = training.before
    return before + training.steps * _step_seconds(training)


def _step_seconds(training: Training) -> float:
    """The mean time of a training step; the first only warms up."""

    def step() -> float:
        return take_step(training, *training.draw()).item()

    training.model.train()
    times = [_timed(step)[0] for _ in for_a_while(itertools.count(), FEWEST_STEPS, STEPPING_SECONDS)]
    return fmean(times[1:])


def _forward_seconds(training: Training) -> float:
    """The time of a forward pass of a batch with rows of all lengths, part by part; the first only warms up."""
    parts: int = training.parts
    indices = _of_all_lengths(training.train, max(1, training.recipe.batch // parts))
    batch = training.train.batch(indices, training.device)
    training.model.eval()
    with torch.inference_mode():
        times = [_timed(lambda: training.model(batch.tokens_BL, batch.keep_BL).out.cpu())[0] for _ in range(2)]
    return parts * times[-1]


def _of_all_lengths(columns: Columns, most: int) -> np.ndarray:
    """The indices of some rows, at most so many, from the shortest on."""
    every = -(-len(columns) // most)
    chosen: np.ndarray = np.argsort(columns.lengths, kind="stable")[::every]
    return chosen


def _some_of(columns: Columns) -> Columns:
    chosen = _of_all_lengths(columns, MOST_TIMED)
    rows = [columns.tokens[columns.offsets[at] : columns.offsets[at + 1]].tolist() for at in chosen]
    return Columns.of(rows, columns.targets[chosen])


def megabytes(folder: Path) -> float:
    """The size of all files in a folder, in MB (1e6 bytes)."""
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file()) / 1e6
