"""What a bundle is worth on labelled rows.

Shapes: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from deepmine_auto.contracts import Prepared, Task
from deepmine_auto.data.rows import Rows
from deepmine_auto.errors import BadInput
from deepmine_auto.study.evidence import intervals, spoken

MOST_NAMED = 20


class Answering(Protocol):
    """What can be judged: a bundle, or an ensemble of bundles."""

    @property
    def manifest(self) -> Mapping[str, Any]:
        """Where it comes from."""

    @property
    def task(self) -> Task:
        """Its task."""

    @property
    def prepared(self) -> Prepared:
        """What the task fitted."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the classes; empty where the task has none."""

    def outputs(self, inputs: Sequence[Any]) -> np.ndarray:
        """The outputs (N, ...) for raw inputs."""


def judge(bundle: Answering, rows: Rows) -> dict[str, Any]:
    """Return scores with their 95 % intervals, precision, recall and F1 of each class, and the sentence.

    Raises BadInput for labels that the model does not know, and for a task without classes.
    """
    from sklearn.metrics import precision_recall_fscore_support

    _refuse_unknown(bundle, rows)
    targets_N = bundle.prepared.targets(rows)
    outputs_NC = bundle.outputs(rows.inputs)
    bounds = intervals(bundle.task, outputs_NC, targets_N)
    values = bundle.task.scores(outputs_NC, targets_N)
    scores = {name: {"value": value, "low": bounds[name][0], "high": bounds[name][1]} for name, value in values.items()}
    ids = list(range(len(bundle.labels)))
    columns = precision_recall_fscore_support(targets_N, outputs_NC.argmax(1), labels=ids, zero_division=0.0)
    names = ("precision", "recall", "f1", "rows")
    classes = {
        label: dict(zip(names, (each.item() for each in row), strict=True))
        for label, row in zip(bundle.labels, zip(*columns, strict=True), strict=True)
    }
    return {"rows": len(rows), "sentence": _sentence(bundle, scores, len(rows)), "scores": scores, "classes": classes}


def _refuse_unknown(bundle: Answering, rows: Rows) -> None:
    if not bundle.labels:
        raise BadInput(f"The task '{bundle.task.name}' has no classes to judge.", "Use `deepmine-auto predict`.")
    foreign = sorted(set(map(str, rows.labels)) - set(bundle.labels))
    if foreign:
        what = f"The model does not know the {'label' if len(foreign) == 1 else 'labels'} {_named(foreign)}."
        raise BadInput(what, f"It knows {_named(bundle.labels)}. Correct the rows, or leave them out.")


def _named(labels: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(labels) - MOST_NAMED} more" if len(labels) > MOST_NAMED else ""
    return ", ".join(f"'{each}'" for each in labels[:MOST_NAMED]) + more


def _sentence(bundle: Answering, scores: dict[str, dict[str, float]], rows: int) -> str:
    """The objective of the search, or the task's, as the card puts it."""
    objective = (bundle.manifest.get("evidence") or {}).get("objective", bundle.task.objective)
    score = scores[objective]
    return f"{spoken(objective)} {score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}] on {rows:,} rows"
