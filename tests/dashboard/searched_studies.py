"""Studies that a ledger wrote, as a dashboard should show them."""

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from fakes import SPACE, Desk, quick

from deepmine_auto.dashboard.serve import application
from deepmine_auto.messages import Ended, Reported
from deepmine_auto.objectives import Objective
from deepmine_auto.storage.store import Store, StudyRow
from deepmine_auto.study.budget import Budget
from deepmine_auto.study.notes import best_note, study_note
from deepmine_auto.study.showing import attach, attach_confusion, note_study, note_trial

LIMIT = ("latency_ms", 1, 5.0)
FAILING, COSTLY = 5, 7
TRIALS = 24


def costly(assignment, host):
    """A training of which one trial scores best by far and costs more than is allowed, and one raises."""
    over = assignment.number == COSTLY
    costs = {"latency_ms": 8.0 if over else 2.5, "peak_mb": 80.0, "params_million": 1.5 + assignment.number / 10}
    if assignment.number == FAILING:
        yield Ended("plugin", reason="ValueError: a head too many", plugin="attention/good")
        return
    for message in quick(assignment, host):
        if isinstance(message, Reported):
            value = message.value + over
            yield replace(message, value=value, metrics={"f": value, **costs})
        else:
            yield replace(message, value=message.value + over)


@dataclass
class Shown:
    """A database that is written by a desk and read by a dashboard."""

    desk: Desk
    reader: Store
    curves: StudyRow
    front: StudyRow

    def app(self, token=None):
        """The dashboard as it is served."""
        return application(self.reader, token)


def fill(desk: Desk) -> list[StudyRow]:
    """Search two studies, and write beside them what a search writes."""
    studies = [
        begin(desk, "curves", [Objective("f", "maximize")], limits=[LIMIT]),
        begin(desk, "front", [Objective("f", "maximize"), Objective("latency_ms", "minimize")]),
    ]
    for study, trials in zip(studies, (TRIALS, 10), strict=True):
        desk.work(study, Budget(trials=trials), costly)
    curves = studies[0]
    best = max((each for each in desk.trials(curves) if each.state.name == "COMPLETE"), key=lambda each: each.value)
    result = {"winner": best.number, "sentence": "macro-F1 0.871, 6.3 points over tf-idf"}
    reruns = [{"trial": best.number, "repeat": 0, "state": "COMPLETE", "value": 0.87}]
    assert note_study(desk.store, curves, study_note(curves, ("tf-idf", 0.81), result, reruns))
    assert note_trial(desk.store, curves, best, best_note(curves, best.value, None))
    assert attach(desk.store, curves, "config.json", json.dumps(best.params).encode(), best)
    truth = np.arange(60) % 3
    assert attach_confusion(desk.store, curves, best, ["bad", "fair", "good"], truth, truth * (np.arange(60) % 4 > 0))
    return studies


def begin(desk: Desk, name: str, objectives: list[Objective], **more: Any) -> StudyRow:
    """Write a new study with all that a plan says."""
    desk.free()
    (desk.folder / name).mkdir()
    spec = {
        "task": "sentiment",
        "objective": objectives[0].name,
        "objectives": [each.name for each in objectives],
        "seed": 7,
        "space": SPACE.to_json(),
        "space_name": "tiny.toml",
        "fingerprint": "0" * 64,
        "described": {"labels": {"bad": 20, "fair": 20, "good": 20}},
        "parts": {"train": 3312, "validation": 414, "test": 414},
        "budget": {"trials": TRIALS},
        "limits": [],
        **more,
    }
    return desk.store.create_study(name, objectives, str(desk.folder / name), spec)
