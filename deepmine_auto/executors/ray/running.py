"""Working an agenda off on Ray Tune, one Tuner after the other, so that the memory that actors leak comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.error import TuneError
from ray.tune.execution import tune_controller

from deepmine_auto.errors import DeepmineError
from deepmine_auto.executors.ray.feeding import LOW_ON_MEMORY, AgendaScheduler, AgendaSearcher
from deepmine_auto.executors.ray.nodes import refuse_unlike
from deepmine_auto.executors.ray.worker import Worker
from deepmine_auto.executors.resources import Resources
from deepmine_auto.scratch import scratch
from deepmine_auto.study.agenda import Agenda
from deepmine_auto.study.provenance import plugins_in_use

TRIALS_A_WORKER = 50
"""After so many trials a worker, all of them are renewed."""


def run(agenda: Agenda, resources: Resources, tick: Callable[[], None]) -> None:
    """Work until the agenda is done, on a Ray that `started` opened; `tick` is called after each message.

    Raises BadInput where a node has other plugins or does not see the study's folder.
    """
    refuse_unlike(plugins_in_use(agenda.ledger), Path(agenda.ledger.study.folder))
    while not agenda.done:
        searcher = AgendaSearcher(agenda, resources, TRIALS_A_WORKER * resources.slots)
        with scratch("deepmine-tune") as folder:
            try:
                with _one_gone():
                    _tuner(searcher, AgendaScheduler(searcher, tick), str(folder)).fit()
            except (TuneError, RuntimeError) as error:
                if ours := _behind(error, DeepmineError):
                    raise ours from ours.__cause__
                if not _behind(error, OutOfMemoryError) or not searcher.keys:
                    raise
                searcher.all_gone(LOW_ON_MEMORY)  # a Tune in which `_one_gone` changed nothing ends all others with it


@contextmanager
def _one_gone() -> Iterator[None]:
    """Let Tune take a worker that Ray ends because memory runs low for one that has died: it takes the error that Ray
    tells this by for one of its own, and would end all others too."""
    before = tune_controller.RayActorManager

    class Managing(before):  # type: ignore[misc, valid-type]
        def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
            if isinstance(exception, OutOfMemoryError):
                exception = RayActorError(error_msg=str(exception))
            super()._actor_task_failed(tracked_actor_task, exception)

    tune_controller.RayActorManager = Managing
    try:
        yield
    finally:
        tune_controller.RayActorManager = before


def _tuner(searcher: AgendaSearcher, scheduler: AgendaScheduler, folder: str) -> tune.Tuner:
    return tune.Tuner(
        tune.with_resources(Worker, searcher.resources.per_trial),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=searcher.resources.slots,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="study",
            storage_path=folder,
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # ours are named by the database
        ),
    )


def _behind(error: BaseException, kind: type[Exception]) -> BaseException | None:
    """An error of this kind that Tune wraps: ours has a sentence and an exit code of its own."""
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, kind):
        inner = inner.__cause__ or inner.__context__
    return inner
