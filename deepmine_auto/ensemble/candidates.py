"""Who may become a member: the trials of a study whose best weights are on the disk and whole.

All were trained on the split of the search, so that none has learned from the rows on which they are chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from deepmine_auto.concluding import Chosen, restored
from deepmine_auto.contracts import Task
from deepmine_auto.errors import BadInput
from deepmine_auto.host import Host
from deepmine_auto.storage.store import Store, StudyRow
from deepmine_auto.study.finals import may_win
from deepmine_auto.study.history import History
from deepmine_auto.study.provenance import unavailable
from deepmine_auto.study.pruning import oriented
from deepmine_auto.study.seeding import of_trial
from deepmine_auto.study.spaces import Spaces
from deepmine_auto.training.checkpoint import Damaged
from deepmine_auto.training.loop import Training
from deepmine_auto.training.outputs import outputs_of


@dataclass(frozen=True, eq=False)
class Candidate:
    """A trial and its outputs (N, ...) on the validation rows of the search."""

    trial: int
    outputs: np.ndarray


@dataclass(frozen=True, eq=False)
class Pool:
    """All candidates, the best first, and what they are judged by."""

    candidates: tuple[Candidate, ...]
    task: Task
    targets: np.ndarray


def pool_of(row: StudyRow, store: Store, host: Host) -> Pool:
    """Let every trial whose weights can be had answer the validation rows. Raises BadInput for fewer than two, and for
    a task whose answers are no classes."""
    found: list[Candidate] = []
    for training in trainings(row, store, host):
        outputs = outputs_of(training.model, training.evaluated(), training.validation, training.device)
        found.append(Candidate(training.assignment.number, outputs))
    if len(found) < 2:
        kept = f"trial {found[0].trial} alone" if found else "no trial"
        what = f"An ensemble needs two trials, and the study '{row.name}' has whole weights of {kept}."
        raise BadInput(what, f"Search further: deepmine-auto resume {row.typed} --trials N")
    if found[0].outputs.shape[-1] < 2:
        what = f"The task '{row.spec['task']}' has no classes, so that there are no probabilities to average."
        raise BadInput(what, f"Use its winner: deepmine-auto best {row.typed}")
    return Pool(tuple(found), training.task, training.validation.targets)


def trainings(row: StudyRow, store: Store, host: Host) -> Iterator[Training]:
    """The trainings of all trials that may win and whose weights are whole, the best first, one at a time."""
    history, spaces = History(store, row), Spaces.of(store, row)
    values = history.best_values()
    able = [each for each, trial in history.trials.items() if each in values and may_win(trial)]
    for each in sorted(able, key=lambda each: (-oriented(values[each], row.direction), each)):
        params = spaces.complete(each, history.trials[each].params)
        best = history.of("trial", each).best(row.direction)
        if best is None or unavailable(row, params, host):
            continue
        chosen = Chosen(each, *of_trial(int(row.spec["seed"]), each), best["best_checkpoint"])
        try:
            training = restored(row, params, chosen, host)
        except Damaged:
            continue
        yield training
