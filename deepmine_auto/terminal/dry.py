"""A dry run for people and for programs: what would be searched, and what that is expected to take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from deepmine_auto.estimating import DryRun, Estimates
from deepmine_auto.space import Choice, Float, Int, Param, Range, Space
from deepmine_auto.study.budget import duration
from deepmine_auto.study.forecasting import Interval
from deepmine_auto.terminal.words import model_words, plain, table

CHOSEN = {"attention": "attention", "model": "backbone", "optimizer": "optimizer"}
"""The first part of a param's name, where one plugin of a kind is chosen, and that kind."""

TRIED = {"attention": "modifier", "technique": "technique"}
"""The same where a plugin is used or not."""


def to_json(found: DryRun) -> dict[str, Any]:
    """Return all of it as plain values."""
    planned, spec = found.plan, found.plan.spec
    copied = ("task", "fingerprint", "described", "parts", "sampler", "pruner", "seed", "workers", "space_name", "space")
    return {
        "study": planned.name,
        "storage": str(planned.storage),
        "folder": str(planned.folder),
        **{name: spec[name] for name in copied},
        "objectives": [list(each) for each in zip(spec["objectives"], spec["directions"], strict=True)],
        "limits": [f"{name}{'<=' if sign > 0 else '>='}{bound:g}" for name, sign, bound in spec["limits"]],
        "budget": spec["budget"],
        "plugins": {kind: list(names) for kind, names in plugins(found.space).items()},
        "notes": list(planned.notes),
        "estimates": _plain(found.estimates),
    }


def _plain(estimates: Estimates) -> dict[str, Any]:
    return {
        name: value._asdict() if isinstance(value, Interval) else value
        for name, value in vars(estimates).items()
    }


def as_text(found: DryRun, width: int | None) -> str:
    """The study, what would be searched, and what it is expected to take."""
    blocks = [_aligned(_study(found)), _aligned(_plugins(found.space)), _params(found.space, width)]
    blocks += [_aligned(_first(found.space), width)] if found.space.recipes else []
    return "\n\n".join([*blocks, _aligned(_estimates(found.estimates))])
