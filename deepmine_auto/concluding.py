"""The end of a study: the winner's weights, the locked test opened for them, and the bundle.

What was found is written to the study, so that it can be shown again without opening the test again.
"""

from __future__ import annotations

import json
import math
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optuna.trial import TrialState

from deepmine_auto.bundle.card import Story
from deepmine_auto.bundle.parity import INPUTS, refuse_beyond_rounding
from deepmine_auto.bundle.save import Exported, refuse_without_room, save
from deepmine_auto.classification import TextPrepared
from deepmine_auto.contracts import Prepared
from deepmine_auto.data.kept import rows_of, test_rows
from deepmine_auto.data.rows import Rows
from deepmine_auto.errors import NothingLearned
from deepmine_auto.host import Host
from deepmine_auto.messages import Assignment
from deepmine_auto.model.assemble import plugins_of
from deepmine_auto.pretrained.memory import forgotten
from deepmine_auto.pretrained.merging import merge
from deepmine_auto.storage.store import Row, StudyRow
from deepmine_auto.study.agenda import Agenda
from deepmine_auto.study.baseline import name_of, rows_to_fit
from deepmine_auto.study.budget import duration
from deepmine_auto.study.evidence import Evidence, weigh
from deepmine_auto.study.finals import Winner, winner
from deepmine_auto.study.ledger import Ledger
from deepmine_auto.study.notes import study_note
from deepmine_auto.study.seeding import of_rerun, of_trial, seed_of
from deepmine_auto.study.showing import attach, attach_confusion, note_study
from deepmine_auto.training import checkpoint
from deepmine_auto.training.batching import Columns
from deepmine_auto.training.loop import Training
from deepmine_auto.training.outputs import outputs_of

VERSIONS = ("deepmine-auto", "torch", "optuna", "ray", "tokenizers", "safetensors")
TIMED_TEXTS = 20
MORE_MINUTES = 10
"""So much more time is offered where nothing was learned."""


@dataclass(frozen=True)
class Chosen:
    """Weights that may be exported: of which trial, trained on which split, from which checkpoint."""

    trial: int
    split: str
    seed: int
    checkpoint: str


def conclude(agenda: Agenda, host: Host, bundle: Path) -> Row:
    """Name the winner, open the test for its weights, export them, and write the result. Raises NothingLearned."""
    ledger = agenda.ledger
    won = winner(agenda.finalists(), ledger.reruns.values(), agenda.best_values(), ledger.direction)
    if won is None:
        raise _nothing(agenda)
    chosen = _weights_of(agenda, won)
    training = restored(ledger.study, ledger.params(chosen.trial), chosen, host)
    refuse_without_room(bundle, training.model)
    ledger.event("test opened", f"the locked test was opened for the weights of trial {won.trial}", won.trial)
    examined = examine(training, chosen, ledger.study, ledger.seed)
    facts = {**training.facts(), **_facts(agenda, training, examined.rows)}
    sentence = _sentence(examined.evidence, won)
    story = story_of(ledger.study, training.assignment.params, chosen, host, sentence, examined.evidence, facts)
    difference = export(bundle, training, story, examined.rows)
    result = _result(won, story, bundle, difference, ledger.spent)
    ledger.write_result(result)
    _show(ledger, training, examined, result)
    return result


def _show(ledger: Ledger, training: Training, examined: Examined, result: Row) -> None:
    """What dashboards show of the end: the verdict, the winner's params, and how its weights confuse the classes."""
    if ledger.writer.away_since is not None:
        return
    store, study, winner = ledger.store, ledger.study, ledger.trials[result["winner"]]
    note_study(store, study, study_note(study, None, result, ledger.reruns.values()))
    config = json.dumps(ledger.params(winner.number), indent=1).encode()
    attach(store, study, "config.json", config, winner)
    if isinstance(training.prepared, TextPrepared):
        labels = training.prepared.fitted.labels
        attach_confusion(store, study, winner, labels, examined.targets, examined.outputs.argmax(-1))


def _nothing(agenda: Agenda) -> NothingLearned:
    ledger = agenda.ledger
    remedy = f"deepmine-auto resume {ledger.study.typed} --time-budget {math.ceil(ledger.spent / 60) + MORE_MINUTES}m"
    causes = Counter(each.user_attrs.get("cause") for each in ledger.trials.values() if each.state.is_finished())
    if "limit" in causes:
        limits = ", ".join(map(str, ledger.study.limits))
        return NothingLearned(f"No trial keeps the limits: {limits}.", f"Ease them in a new study, or go on: {remedy}")
    del causes["deadline"]
    if {*causes} == {"memory"}:
        what = "Every trial ran out of memory, also where its batch was worked off row by row."
        others = 'a smaller model, a tuning such as lora, or shorter texts ("data/max_len" in a space)'
        return NothingLearned(what, f"Search {others}; see `deepmine-auto trials {ledger.study.typed}`.")
    if causes:
        told = ", ".join(f"{cause} ({count})" for cause, count in causes.most_common())
        return NothingLearned(
            f"No trial ended well; the causes were {told}.", f"See `deepmine-auto trials {ledger.study.typed}`."
        )
    what = f"Nothing was learned in {ledger.spent:.0f} s: no trial reached its first evaluation{_pace(agenda)}."
    return NothingLearned(what, f"Go on with more time: {remedy}")


def _pace(agenda: Agenda) -> str:
    """How long a trial would take, by the last sign of life of the slowest."""
    whole = [each.seconds * each.steps / each.step for each in agenda.beats.values() if each.step]
    return f"; a whole trial takes about {duration(max(whole))}" if whole else ""


def _weights_of(agenda: Agenda, won: Winner) -> Chosen:
    ledger = agenda.ledger
    if won.rerun is None:
        best = ledger.history.of("trial", won.trial).best(ledger.direction)
        assert best is not None
        return Chosen(won.trial, *of_trial(ledger.seed, won.trial), best["best_checkpoint"])
    row = ledger.reruns[won.rerun]
    return Chosen(won.trial, *of_rerun(ledger.seed, row["repeat"]), row["checkpoint"])


def restored(study: StudyRow, params: Row, chosen: Chosen, host: Host) -> Training:
    """The training of chosen weights as its checkpoint left it. Raises Damaged where that cannot be read."""
    assignment = Assignment(
        kind="trial",
        number=chosen.trial,
        attempt=0,
        folder=study.folder,
        task=study.spec["task"],
        objective=study.spec["objective"],
        split=chosen.split,
        seed=chosen.seed,
        params=params,
        checkpoints=(chosen.checkpoint,),
    )
    checkpoint.check(Path(study.folder) / chosen.checkpoint)
    return Training(assignment, host)


@dataclass(frozen=True)
class Examined:
    """The test rows, and what the weights are worth on them."""

    rows: Rows
    evidence: Evidence
    outputs: np.ndarray
    targets: np.ndarray


def examine(training: Training, chosen: Chosen, study: StudyRow, seed: int) -> Examined:
    """Score the weights and the baseline, fitted on the same training rows, on the locked test."""
    folder = Path(study.folder)
    rows = test_rows(folder)
    prepared = training.prepared
    outputs = outputs_for(training, rows.inputs)
    task, train = training.task, rows_of(folder, chosen.split, "train")
    baseline = task.baseline(rows_to_fit(task, train), rows, prepared)
    targets = prepared.targets(rows)
    evidence = weigh(task, study.spec["objective"], outputs, baseline, targets, seed_of(seed, "bootstrap"))
    return Examined(rows, replace(evidence, baseline_name=name_of(task, len(train))), outputs, targets)


def outputs_for(training: Training, inputs: Sequence[Any]) -> np.ndarray:
    """The judged weights' outputs (N, ...) for raw inputs."""
    columns = Columns.of(training.prepared.encode(inputs))
    return outputs_of(training.model, training.evaluated(), columns, training.device)


def export(bundle: Path, training: Training, story: Story, rows: Rows) -> float:
    """Write the judged weights as a bundle; return how far its reload differed. The training's model is then merged,
    and on the CPU: what a reload must say to the bit is what that says, since to merge is to round otherwise, and so is
    another device. Raises NotEqual where it is more than rounding."""
    judged, model = training.evaluated(), training.model
    prepared: Prepared = training.prepared
    asked = list(rows.inputs[:INPUTS])
    exactly = torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False)
    with forgotten(model), exactly:  # a reload remembers nothing of these rows, and a CPU does not round as TF32 does
        learned = outputs_for(training, asked)
        model.load_state_dict({**model.state_dict(), **({} if judged is None else judged)})
        params = model_params(story.params, merged=merge(model.backbone))
        outputs = outputs_of(model.cpu(), None, Columns.of(prepared.encode(asked)), torch.device("cpu"))
    refuse_beyond_rounding(outputs, learned)
    return save(bundle, Exported(model.state_dict(), prepared, params, story), asked, outputs)


def model_params(params: Any, merged: bool = True) -> dict[str, Any]:
    """The params that a model is built from; how it was trained is the card's and the manifest's to tell. What was
    merged into a pretrained model is a part of it."""
    rooms = ("attention", "placement", "model", "data", *(() if merged else ("tuning",)))
    return {name: value for name, value in params.items() if name.split("/")[0] in rooms}


def story_of(
    study: StudyRow,
    params: Mapping[str, Any],
    chosen: Chosen,
    host: Host,
    sentence: str,
    evidence: Evidence | None,
    facts: Row,
) -> Story:
    """What the card tells of chosen weights, which were trained with `params`."""
    named = [host.brought(kind, name) for kind, name in plugins_of(study.spec["task"], params)]
    keys = ("kind", "name", "distribution", "version", "hash")
    return Story(
        study=study.name,
        task=study.spec["task"],
        trial=chosen.trial,
        seed=int(study.spec["seed"]),
        params=params,
        space=Path(study.spec["space_name"]).name,
        data={**study.spec["described"], "split": study.spec["parts"]},
        fingerprint=study.spec["fingerprint"],
        plugins=[{key: getattr(each, key) for key in keys} for each in named],
        versions={"python": platform.python_version(), **{name: version(name) for name in VERSIONS}},
        sentence=sentence,
        evidence=None if evidence is None else evidence.to_json(),
        facts=facts,
    )


def _sentence(evidence: Evidence, won: Winner) -> str:
    return evidence.sentence() + ("" if won.rerun is not None else " (not rerun)")


def _facts(agenda: Agenda, training: Training, rows: Rows) -> dict[str, Any]:
    ledger = agenda.ledger
    states = [each.state for each in ledger.trials.values()]
    return {
        "search_seconds": round(ledger.spent, 1),
        "trials": len(states),
        "pruned_share": round(states.count(TrialState.PRUNED) / max(1, len(states)), 3),
        "reruns": sum(row["state"] == "COMPLETE" for row in ledger.reruns.values()),
        "ms_per_text": round(milliseconds(partial(outputs_for, training), training.prepared, rows.inputs), 2),
        "test_opened": ledger.history.opened,
    }


def milliseconds(outputs: Callable[[Sequence[Any]], Any], prepared: Prepared, inputs: Sequence[Any]) -> float:
    """The median time that `outputs` takes for one text of median length, by itself, on the device here."""
    ordered = sorted(inputs, key=lambda each: len(prepared.encode([each])[0]))
    middle = ordered[len(ordered) // 2]
    times = []
    for _ in range(TIMED_TEXTS):
        start = time.perf_counter()
        outputs([middle])
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def _result(won: Winner, story: Story, bundle: Path, difference: float, spent: float) -> Row:
    return {
        "winner": won.trial,
        "rerun": won.rerun,
        "rerun_values": list(won.values) if won.rerun is not None else [],
        "sentence": story.sentence,
        "evidence": dict(story.evidence or {}),
        "facts": dict(story.facts),
        "bundle": str(bundle),
        "reload_difference": difference,
        "seconds": round(spent, 1),
    }
