"""A study and its best trials in words, as Markdown for a dashboard. Pure functions of rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from deepmine_auto.storage.store import Row, StudyRow, shown
from deepmine_auto.study.budget import Budget
from deepmine_auto.study.finals import as_good

MARKS = re.compile(r"([\\`*_{}\[\]<>()#!|~$&])")


def plain(text: object) -> str:
    r"""Text that Markdown shows as it is, in one line, whoever wrote it.

    >>> plain("a_b <b>|")
    'a\\_b \\<b\\>\\|'
    """
    return MARKS.sub(r"\\\1", " ".join(str(text).split()))


def study_note(
    study: StudyRow,
    baseline: tuple[str, float] | None = None,
    result: Row | None = None,
    reruns: Iterable[Row] = (),
) -> str:
    """What is searched for, in what, and how long; at the end the verdict and the finalists.

    `baseline` is its name and its validation score, once that is known.
    """
    facts = [*_goal(study), *_data(study), *_means(study)]
    if baseline is not None:
        facts.append(("baseline", f"{plain(baseline[0])}, {baseline[1]:.4f} on the validation rows"))
    sections = [f"# {plain(study.name)}", _table(("", ""), facts)]
    if result is not None:
        sections += [f"## Result\n\n{plain(result['sentence'])}", _finalists(study, result, [*reruns])]
    return "\n\n".join(each for each in sections if each)


def best_note(study: StudyRow, value: float, before: tuple[int, float] | None) -> str:
    """That a value is the best so far. `before` is the number and the value of the best until then."""
    against = "" if before is None else f", {value - before[1]:+.4f} against trial {before[0]}"
    return f"**A new best**: {plain(shown(study.objectives[0].name))} {value:.4f}{against}."


def _goal(study: StudyRow) -> list[tuple[str, str]]:
    goals = [f"{each.direction} {shown(each.name)}" for each in study.objectives]
    limits = ", ".join(map(str, study.limits))
    return [("goal", plain(", ".join(goals))), *([("limits", plain(limits))] if limits else [])]


def _data(study: StudyRow) -> list[tuple[str, str]]:
    described: Mapping[str, Any] = study.spec.get("described", {})
    parts = ", ".join(f"{count:,} {part}" for part, count in study.spec.get("parts", {}).items())
    labels: Mapping[str, int] = described.get("labels", {})
    return [
        ("task", plain(study.spec["task"])),
        *([("rows", plain(parts))] if parts else []),
        *([("labels", ", ".join(f"{plain(name)} {count:,}" for name, count in labels.items()))] if labels else []),
        ("fingerprint", plain(study.spec["fingerprint"])),
    ]


def _means(study: StudyRow) -> list[tuple[str, str]]:
    budget = Budget(**study.spec.get("budget", {}))
    means = {name: study.spec[name] for name in ("sampler", "pruner", "space_name", "seed") if name in study.spec}
    if "space_name" in means:
        means["space_name"] = Path(means["space_name"]).name
    asked = [("budget", str(budget))] if budget.set else []
    return asked + [(name.replace("_name", ""), plain(each)) for name, each in means.items()]


def _finalists(study: StudyRow, result: Row, reruns: Sequence[Row]) -> str:
    told = dict.fromkeys(as_good(result["winner"], reruns, study.direction), ", may be as good")
    values: dict[int, list[float]] = {}
    for row in reruns:
        if row["state"] == "COMPLETE":
            values.setdefault(row["trial"], []).append(row["value"])
    rows = [
        (
            f"**{trial}, the winner**" if trial == result["winner"] else f"{trial}{told.get(trial, '')}",
            f"{fmean(each):.4f}",
            ", ".join(f"{value:.4f}" for value in each),
        )
        for trial, each in sorted(values.items())
    ]
    heads = ("trial", "mean", f"reruns, each on another {study.varied}")
    return f"## Finalists\n\n{_table(heads, rows)}" if rows else ""


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(each)} |" for each in lines)
