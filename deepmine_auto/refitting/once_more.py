"""A trial's params trained once more in this process, when the study has ended, whose rows stay as they are."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from deepmine_auto.errors import BadInput, DeepmineError
from deepmine_auto.host import Host
from deepmine_auto.messages import Assignment, Ended, Kind, Message, Reported, Saved, attempt_folder, last_line
from deepmine_auto.storage.store import Store, StudyRow
from deepmine_auto.study.history import History
from deepmine_auto.study.provenance import unavailable
from deepmine_auto.study.seeding import of_trial
from deepmine_auto.study.spaces import Spaces
from deepmine_auto.training.ends import guarded
from deepmine_auto.training.loop import Training


def assignment_of(row: StudyRow, store: Store, trial: int, host: Host, kind: Kind) -> Assignment:
    """The trial's own assignment under another name. Raises BadInput where a plugin of it is not here."""
    params = Spaces.of(store, row).complete(trial, store.trials(row.id)[trial].params)
    missing = unavailable(row, params, host)
    if missing:
        raise BadInput(f"Trial {trial} cannot be trained: {missing}.", "Install it.")
    split, seed = of_trial(int(row.spec["seed"]), trial)
    return Assignment(
        kind=kind,
        number=trial,
        attempt=1,
        folder=row.folder,
        task=row.spec["task"],
        objective=row.spec["objective"],
        split=split,
        seed=seed,
        params=params,
        halvings=max((each["halvings"] for each in History(store, row).of("trial", trial).attempts), default=0),
    )


def checkpoints_of(assignment: Assignment) -> Path:
    """The folder of all attempts at an assignment, which nobody needs when it has ended."""
    return (Path(assignment.folder) / attempt_folder(*assignment.key, assignment.attempt)).parent


def built(assignment: Assignment, host: Host, how: str, remedy: str) -> Training:
    """A training at its begin. Raises DeepmineError where it has none."""
    try:
        return Training(assignment, host)
    except Exception as error:  # plugins may raise anything, and memory may be short
        why = str(error).rstrip(".") or type(error).__name__
        raise DeepmineError(f"The training {how} cannot begin: {why}.", remedy) from error


def to_its_end(
    begin: Callable[[], Iterator[Message]], assignment: Assignment, host: Host, how: str, remedy: str
) -> Ended:
    """Train to the end; of the checkpoints the best alone is kept, because nobody goes on from the others. Raises
    DeepmineError where that is no end that a trial is judged by."""
    last: Message | None = None
    best: str | None = None
    for last in guarded(begin, assignment, host):
        best = last.best_checkpoint if isinstance(last, Reported) else best
        if isinstance(last, Reported | Saved):
            _keep_best(assignment, best)
    if not isinstance(last, Ended) or last.cause not in ("budget", "patience") or last.value is None:
        why = (last_line(last.reason) or last.cause) if isinstance(last, Ended) else "interrupted"
        raise DeepmineError(f"The training {how} did not end well: {why}.", remedy)
    return last


def _keep_best(assignment: Assignment, best: str | None) -> None:
    for each in checkpoints_of(assignment).glob(f"attempt-{assignment.attempt}/step-*"):
        if best is None or each.name != Path(best).name:
            shutil.rmtree(each, ignore_errors=True)
