"""The winner's params trained once more on all rows that the search could see: those of training and of validation.

No rows are left to stop by, so that as large a part of the training is taken as was best for the winner. What more rows
are worth, only rows can tell that neither has seen: the locked test is opened once more, for both.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from deepmine_auto.bundle.save import refuse_existing, refuse_unmakeable, refuse_without_room
from deepmine_auto.concluding import Chosen, export, outputs_for, story_of
from deepmine_auto.contracts import Applied
from deepmine_auto.data.kept import REFIT, SEARCH, rows_of, test_rows
from deepmine_auto.errors import BadInput, DatabaseAway
from deepmine_auto.executors.inline import one_thread
from deepmine_auto.exporting import refuse_lost, study_in, training_of, winner_of
from deepmine_auto.host import Host, the_host
from deepmine_auto.messages import WHOLE, Assignment, Ended, Message, Reported
from deepmine_auto.model.assemble import backbone_of, task_of
from deepmine_auto.refitting.once_more import assignment_of, built, checkpoints_of, to_its_end
from deepmine_auto.space import plugin_from
from deepmine_auto.storage import tables
from deepmine_auto.storage.engine import Fence
from deepmine_auto.storage.place import Place, held
from deepmine_auto.storage.store import Row, Store, StudyRow
from deepmine_auto.study.checkpoints import Standing
from deepmine_auto.study.evidence import Evidence, weigh
from deepmine_auto.study.seeding import seed_of
from deepmine_auto.study.writer import replay_left
from deepmine_auto.training.loop import Training
from deepmine_auto.training.prepared import ready
from deepmine_auto.training.recipe import MOST_REPORTS, Recipe

HOW = "on the rows of training and validation"
BESIDE = "which was fitted on the training rows alone"

Tell = Callable[[str], None]


def refit(study: str, storage: Place, output: Path | None = None, tell: Tell = lambda _: None) -> Row:
    """Train the winner's params on all rows, export and judge that; return its folder and what it says of itself.

    `tell` hears what is begun. Raises BadInput where there is no such study or end, where `output` exists, or where
    what won chooses by validation rows as it trains; StudyHeld, DatabaseAway, and DeepmineError where it does not end
    well.
    """
    store, row = study_in(storage, study)
    _chosen(row, store, output)  # what is refused is refused before the study is waited for
    with held(storage, study) as (store, fence):
        replay_left(store, row)
        return refit_held(row, store, fence, output, tell)


def refit_held(
    row: StudyRow,
    store: Store,
    fence: Fence,
    output: Path | None = None,
    tell: Tell = lambda _: None,
    goes_on: Callable[[], bool] = lambda: True,
) -> Row:
    """The same for a study that this process holds. `goes_on` is asked at each message of the training."""
    chosen, folder = _chosen(row, store, output)
    host = the_host()
    with one_thread():
        assignment = _assignment(row, store, chosen.trial, host)
        _refuse_other_classes(assignment, chosen, host)
        share = best_share(row, store)
        try:
            count = _count(row)
            which = told(min(count, plugin_from(Recipe, assignment.params, "training").reads(count)), count)
            tell(f"trial {chosen.trial} is trained on {which}, for {share / WHOLE:.0%} of its steps")
            training = _trained(assignment, share, goes_on, row, host)
            fence.regain()  # the training may have taken hours
            beside = training_of(row, store, chosen, host)
            found = {"folder": str(folder), **_exported(folder, training, beside, row, store, host)}
            with suppress(DatabaseAway):  # the bundle is there and says all of this
                fence.regain()
                store.add_event(row.id, "refit", f"{found['sentence']}: {folder}")
            return found
        finally:
            shutil.rmtree(checkpoints_of(assignment), ignore_errors=True)


def _chosen(row: StudyRow, store: Store, output: Path | None) -> tuple[Chosen, Path]:
    """The winner, and the new folder. Raises BadInput where there is none, or where there is a folder already."""
    chosen = winner_of(row, store)
    folder = output or Path(row.folder) / f"refit-{chosen.trial}"
    refuse_existing(folder)
    refuse_unmakeable(folder)
    refuse_lost(row, chosen)
    return chosen, folder


def _assignment(row: StudyRow, store: Store, trial: int, host: Host) -> Assignment:
    """The trial's own, on all rows. Patience never ends it: those that it would look at are learned from."""
    found = assignment_of(row, store, trial, host, "refit")
    return replace(found, split=REFIT, params={**found.params, "training/patience": MOST_REPORTS})


def told(read: int, rows: int) -> str:
    """How many of so many rows are read, in words. Of a part, as many are of the rows of validation as chance has."""
    return f"all {rows:,} rows" if read == rows else f"{read:,} of {rows:,} rows"


def best_share(row: StudyRow, store: Store) -> int:
    """The share of its steps, in thousandths, after which the winner was best."""
    assert row.result is not None
    key = ("trial", row.result["winner"]) if row.result["rerun"] is None else ("rerun", row.result["rerun"])
    own = [each for each in store.rows(tables.reports, row.id) if (each["kind"], each["number"]) == key]
    best = Standing(reports=own).best(row.direction)
    assert best is not None
    return int(best["share"])


def _count(row: StudyRow) -> int:
    return len(rows_of(Path(row.folder), REFIT, "train"))


def _trained(assignment: Assignment, share: int, goes_on: Callable[[], bool], row: StudyRow, host: Host) -> Training:
    """The training at the report that is nearest to a share of its steps. Raises DeepmineError where it fails."""
    shutil.rmtree(checkpoints_of(assignment), ignore_errors=True)
    remedy = f"Export it as it is: deepmine-auto export {row.typed}"
    training = built(assignment, host, HOW, remedy)
    for name, each in training.techniques.items():
        if type(each).judged is not Applied.judged:
            what = f"Trial {assignment.number} has '{name}', which chooses by validation rows that a refit learns from."
            raise BadInput(what, remedy)
    to_its_end(lambda: _up_to(share, training, goes_on), assignment, host, HOW, remedy)
    training.optimizer.state.clear()  # the winner is loaded next, and needs the room
    return training


def _up_to(share: int, training: Training, goes_on: Callable[[], bool] = lambda: True) -> Iterator[Message]:
    stops = training.recipe.evaluations(training.steps, len(training.validation))
    last = training.before + min(stops, key=lambda each: abs(WHOLE * each / training.steps - share))
    messages = training.messages()
    while goes_on():  # asked before the first too: the training may have taken long to begin
        if (message := next(messages, None)) is None:
            return
        if isinstance(message, Reported) and message.step == last:
            yield Ended("budget", message.value, message.step)
            return
        yield message
    yield Ended("deadline", reason="the time is used up")


def _refuse_other_classes(assignment: Assignment, chosen: Chosen, host: Host) -> None:
    """What the winner's rerun was fitted on may lack an answer that is rare; then their outputs do not compare."""
    folder, params = Path(assignment.folder), assignment.params
    task, backbone = task_of(assignment.task, params, host), backbone_of(params, host)
    both = [ready(folder, split, task, backbone).prepared for split in (REFIT, chosen.split)]
    rows = rows_of(folder, SEARCH, "validation")
    with suppress(BadInput):  # an answer that one of them does not know
        targets, others = (each.targets(rows) for each in both)
        if both[0].outputs == both[1].outputs and np.array_equal(targets, others):
            return
    what = f"Trial {chosen.trial} was trained on rows that lack a class, so that a refit cannot be compared with it."
    raise BadInput(what, "Give rows in which no class is rare.")


# -- the locked test -------------------------------------------------------------------------------------------------


def _exported(folder: Path, training: Training, beside: Training, row: StudyRow, store: Store, host: Host) -> Row:
    """Open the test for both, and write the bundle with what that says."""
    trial, params = beside.assignment.number, beside.assignment.params
    refuse_without_room(folder, training.model)
    evidence = _evidence(training, beside, row, store)
    opened = sum(each["kind"] == "test opened" for each in store.rows(tables.events, row.id))
    facts = {"training_rows": len(training.train), **training.facts(), "test_opened": opened}
    which = told(int(facts["training_rows"]), len(training.train))
    facts["trained_share"] = round((training.progress.step - training.before) / training.steps, 3)
    sentence = f"{evidence.sentence()}; trained on {which}"
    chosen = Chosen(trial, REFIT, training.assignment.seed, "")
    story = replace(story_of(row, params, chosen, host, sentence, evidence, facts), beside=BESIDE)
    export(folder, training, story, rows_of(Path(row.folder), SEARCH, "validation"))
    return {"trial": trial, "sentence": sentence, "evidence": evidence.to_json(), "facts": facts}


def _evidence(training: Training, beside: Training, row: StudyRow, store: Store) -> Evidence:
    """Its scores with the winner's beside them, in the place where a trial's evidence has the baseline's."""
    trial = beside.assignment.number
    store.add_event(row.id, "test opened", f"the locked test was opened for trial {trial}, trained {HOW}")
    rows = test_rows(Path(row.folder))
    outputs, others = (outputs_for(each, rows.inputs) for each in (training, beside))
    targets, seed = training.prepared.targets(rows), seed_of(int(row.spec["seed"]), "bootstrap")
    evidence = weigh(training.task, row.spec["objective"], outputs, others, targets, seed)
    return replace(evidence, baseline_name=f"the winner, trial {trial}")
