"""A trial's params trained once more in this process, when the study has ended, whose rows stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from deepmine_auto.data.kept import SEARCH
from deepmine_auto.errors import BadInput, DeepmineError
from deepmine_auto.host import Host
from deepmine_auto.messages import Assignment, Ended, Kind, Message, attempt_folder, last_line
from deepmine_auto.storage.store import Store, StudyRow
from deepmine_auto.study.history import History
from deepmine_auto.study.provenance import unavailable
from deepmine_auto.study.seeding import seed_of
from deepmine_auto.study.spaces import Spaces
from deepmine_auto.training.ends import guarded


def assignment_of(row: StudyRow, store: Store, trial: int, host: Host, kind: Kind) -> Assignment:
    """The trial's own assignment under another name. Raises BadInput where a plugin of it is not here."""
    params = Spaces.of(store, row).complete(trial, store.trials(row.id)[trial].params)
    missing = unavailable(row, params, host)
    if missing:
        raise BadInput(f"Trial {trial} cannot be trained: {missing}.", "Install it.")
    return Assignment(
        kind=kind,
        number=trial,
        attempt=1,
        folder=row.folder,
        task=row.spec["task"],
        objective=row.spec["objective"],
        split=SEARCH,
        seed=seed_of(int(row.spec["seed"]), "trial", trial),
        params=params,
        halvings=max((each["halvings"] for each in History(store, row).of("trial", trial).attempts), default=0),
    )


def checkpoints_of(assignment: Assignment) -> Path:
    """The folder of all attempts at an assignment, which nobody needs when it has ended."""
    return (Path(assignment.folder) / attempt_folder(*assignment.key, assignment.attempt)).parent


def to_its_end(
    begin: Callable[[], Iterator[Message]], assignment: Assignment, host: Host, how: str, remedy: str
) -> Ended:
    """Train to the end. Raises DeepmineError where that is none that a trial is judged by."""
    last = [*guarded(begin, assignment, host)][-1]
    if not isinstance(last, Ended) or last.cause not in ("budget", "patience") or last.value is None:
        why = (last_line(last.reason) or last.cause) if isinstance(last, Ended) else "interrupted"
        raise DeepmineError(f"The training {how} did not end well: {why}.", remedy)
    return last
