"""The winner's params trained once more, with an ensemble as the teacher: the ensemble's word at one model's cost.

It is compared with the trial itself, which had the same rows, the same seed, and labels alone; one that the search
stopped is trained to its end for that. The test stays locked.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from optuna.trial import TrialState

from deepmine_auto.bundle.card import UNOPENED
from deepmine_auto.bundle.save import refuse_existing, refuse_unmakeable
from deepmine_auto.concluding import Chosen, export, story_of
from deepmine_auto.data.kept import SEARCH, rows_of
from deepmine_auto.ensemble.averaging import averaged
from deepmine_auto.ensemble.candidates import pool_of, trainings
from deepmine_auto.ensemble.selecting import PICKS, NoBetter, Selection, refuse_few, select
from deepmine_auto.ensemble.teaching import Taught
from deepmine_auto.errors import BadInput
from deepmine_auto.executors.inline import one_thread
from deepmine_auto.exporting import study_in, winner_of
from deepmine_auto.host import Host, the_host
from deepmine_auto.messages import Assignment, Ended, Message
from deepmine_auto.refitting.once_more import assignment_of, checkpoints_of, to_its_end
from deepmine_auto.storage.place import Place, held
from deepmine_auto.storage.store import Row, Store, StudyRow
from deepmine_auto.study.evidence import spoken
from deepmine_auto.study.history import History
from deepmine_auto.study.pruning import oriented
from deepmine_auto.training.loop import Training
from deepmine_auto.training.outputs import outputs_of


@dataclass(frozen=True)
class Lesson:
    """How much the teacher counts beside the labels, and how soft its word is made; how many picks the teacher has."""

    members: int = PICKS
    alpha: float = 0.5
    temperature: float = 2.0

    def refuse_wrong(self) -> None:
        """Raise BadInput for what is no lesson."""
        refuse_few(self.members)
        if not 0 < self.alpha <= 1:
            raise BadInput(f"--alpha is {self.alpha:g}.", "Give a share above 0, and at most 1.")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise BadInput(f"--temperature is {self.temperature:g}.", "Give a number above 0.")


def distil(
    study: str,
    storage: Place,
    lesson: Lesson,
    output: Path | None = None,
    *,
    keep: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Row:
    """Teach the winner's params, and export what comes of it; return its folder, its value and the trial's own. `tell`
    hears what is begun.

    Raises BadInput where there is no such study, end or second trial, or where `output` exists; NoBetter where no
    ensemble is better than one trial, or, unless `keep`, where what was taught is not better than the trial itself.
    """
    lesson.refuse_wrong()
    store, row = study_in(storage, study)
    trial = winner_of(row, store).trial
    folder = output or Path(row.folder) / f"distilled-{trial}"
    refuse_existing(folder)
    refuse_unmakeable(folder)
    with held(storage, study), one_thread():
        host = the_host()
        found = select(pool_of(row, store, host), row, lesson.members)
        assignment = assignment_of(row, store, trial, host, "distilled")
        try:
            tell(f"trial {trial} is trained again, taught by an ensemble of trials {found.words()}")
            ended = _taught(assignment, _teacher(row, store, host, found), lesson, host)
            told = _compared(row, ended, _untaught(row, store, assignment, host, tell), found, lesson)
            if not (told["better"] or keep):
                raise NoBetter(f"{told['sentence']}.", "Nothing was exported; --keep exports it all the same.")
            _export(folder, row, replace(assignment, checkpoints=(str(ended.checkpoint),)), told, host)
        finally:
            shutil.rmtree(checkpoints_of(assignment), ignore_errors=True)
    return {"folder": str(folder), **told}


def _teacher(row: StudyRow, store: Store, host: Host, found: Selection) -> np.ndarray:
    """What the ensemble says of every training row, in their order."""
    said = {
        each.assignment.number: outputs_of(each.model, each.evaluated(), each.train, each.device)
        for each in trainings(row, store, host)
        if each.assignment.number in found.shares
    }
    return averaged([said[trial] for trial in found.shares], [*found.shares.values()])


def _taught(assignment: Assignment, teacher: np.ndarray, lesson: Lesson, host: Host) -> Ended:
    shutil.rmtree(checkpoints_of(assignment), ignore_errors=True)

    def begin() -> Iterator[Message]:
        training = Training(assignment, host)
        training.techniques["distilled"] = Taught(teacher, lesson.alpha, lesson.temperature)
        return training.messages()

    return to_its_end(begin, assignment, host, "with a teacher", "Try a smaller --alpha.")


class Untaught(NamedTuple):
    """A trial without a teacher: its number, its value, and how far the search had brought it where that stopped it."""

    trial: int
    value: float
    stopped_at: float | None = None


def _untaught(row: StudyRow, store: Store, assignment: Assignment, host: Host, tell: Callable[[str], None]) -> Untaught:
    """The trial itself, trained to its end if the search did not: a teacher has no credit for steps that a trial never
    took."""
    history, trial = History(store, row), assignment.number
    own = history.best_values()[trial]
    if history.trials[trial].state == TrialState.COMPLETE:
        return Untaught(trial, own)
    tell(f"trial {trial} is trained again without a teacher, because the search stopped it before its end")
    again = replace(assignment, attempt=2)  # the checkpoints of the first are still wanted
    value = to_its_end(
        lambda: Training(again, host).messages(),
        again,
        host,
        "without a teacher",
        f"Export it as it is: deepmine-auto export {row.typed}",
    ).value
    assert value is not None
    return Untaught(trial, value, own)


def _compared(row: StudyRow, ended: Ended, itself: Untaught, found: Selection, lesson: Lesson) -> Row:
    value = ended.value
    assert value is not None
    better = oriented(value, row.direction) > oriented(itself.value, row.direction)
    score = f"{spoken(row.spec['objective'])} {value:.4f} on the validation rows"
    beside = f"{itself.value:.4f} without a teacher"
    if itself.stopped_at is not None:
        beside += f" (the search stopped it at {itself.stopped_at:.4f})"
    sentence = f"trial {itself.trial} taught by an ensemble of trials {found.words()} has {score}, and {beside}"
    facts = {"teacher": f"trials {found.words()}", "alpha": lesson.alpha, "temperature": lesson.temperature}
    return {
        "trial": itself.trial,
        "value": value,
        "own": itself.value,
        "better": better,
        "sentence": sentence,
        "facts": facts,
    }


def _export(folder: Path, row: StudyRow, assignment: Assignment, told: Row, host: Host) -> None:
    training = Training(assignment, host)
    chosen = Chosen(assignment.number, SEARCH, assignment.seed, assignment.checkpoints[0])
    facts = {**training.facts(), **told["facts"]}
    sentence = f"{told['sentence']}; {UNOPENED}"
    story = story_of(row, assignment.params, chosen, host, sentence, None, facts)
    export(folder, training, story, rows_of(Path(row.folder), SEARCH, "validation"))
