"""Eighty short texts in a study's folder, and assignments that train on them in a second."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepmine_auto.data.kept import SEARCH, keep
from deepmine_auto.data.rows import Extra, Rows
from deepmine_auto.data.split import resplit, split
from deepmine_auto.messages import Assignment

GOOD = ["good", "great", "fine", "warm", "sunny", "happy", "kind", "bright"]
BAD = ["bad", "awful", "cold", "grim", "sad", "rude", "dark", "sour"]
PLAIN = [
    "the",
    "a",
    "day",
    "tea",
    "house",
    "road",
    "book",
    "bird",
    "of",
    "and",
    "in",
    "on",
    "with",
    "my",
    "our",
    "this",
]

PARAMS: dict[str, Any] = {
    "attention/kind": "multi_head",
    "model/kind": "encoder",
    "model/depth": 1,
    "model/dim": 32,
    "model/heads": 2,
    "model/encoder/dropout": 0.2,
    "optimizer/kind": "adamw",
    "optimizer/adamw/lr": 3e-3,
    "training/epochs": 4,
    "training/batch": 16,
    "training/patience": 200,
    "schedule/kind": "cosine",
    "data/tokens": "word",
}
TECHNIQUES = {"technique/ema/use": True, "technique/word_dropout/use": True, "technique/label_smoothing/use": True}
SPACE = """
[plugins]
attention = ["multi_head"]
[ranges]
"training/epochs" = 2
"model/dim" = [32]
"model/depth" = 1
"""
"""A search space in which a trial takes a second."""


def rows(count: int = 80) -> Rows:
    """Texts whose words say their label."""
    rng = random.Random(5)
    texts, labels = [], []
    for at in range(count):
        words = rng.choices(PLAIN, k=rng.randint(2, 14)) + rng.choices((GOOD, BAD)[at % 2], k=2)
        rng.shuffle(words)
        texts.append(" ".join([*words, str(at)]))
        labels.append(("up", "down")[at % 2])
    return Rows(texts, labels)


def as_csv() -> str:
    """The texts as a user's file."""
    made = rows()
    lines = [f'"{text}",{label}' for text, label in zip(made.inputs, made.labels, strict=True)]
    return "\n".join(["text,label", *lines]) + "\n"


def kept(folder: Path, unlabelled: Sequence[str] = (), paraphrases: Sequence[tuple[str, str]] = ()) -> Path:
    """A study's folder with the texts and their splits, and perhaps texts without labels, or other words for some."""
    made = rows()
    first = split(made.labels, 1)
    again = {f"rerun-{each}": resplit(first, made.labels, each) for each in range(3)}
    folder.mkdir(parents=True, exist_ok=True)
    keep(folder, made, {SEARCH: first, **again}, Extra(unlabelled, paraphrases))
    return folder


def assignment(folder: Path, **changed: Any) -> Assignment:
    """A trial on these texts; `params` are changed one by one."""
    params = {**PARAMS, **changed.pop("params", {})}
    fields = {"kind": "trial", "number": 0, "attempt": 1, "objective": "log_loss", "split": SEARCH, "seed": 11}
    return Assignment(folder=str(folder), task="text_classification", params=params, **{**fields, **changed})
