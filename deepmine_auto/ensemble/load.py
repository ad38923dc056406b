"""The folder of an ensemble: a bundle for each member, a card, and `ensemble.json`, which says whose word counts how
much. A `config.json` beside them tells transformers that it is none of its models.

Loading checks that nothing was changed since, each bundle as always, and that all answer the same question.

Shapes: N rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepmine_auto.bundle.load import Bundle, load
from deepmine_auto.bundle.manifest import COPY, MANIFEST, sealed, unsealed
from deepmine_auto.contracts import Prepared, Task
from deepmine_auto.disk import flush, sha256
from deepmine_auto.ensemble.averaging import averaged
from deepmine_auto.ensemble.card import card
from deepmine_auto.errors import BadInput

ENSEMBLE = "ensemble.json"
CARD = "README.md"
CONFIG = "config.json"
ENSEMBLE_TYPE = "deepmine_auto_ensemble"
SAID = json.dumps({"model_type": ENSEMBLE_TYPE}) + "\n"
"""What stands in `config.json`; `deepmine_auto.hf` knows it, and says how an ensemble is loaded."""
FORMAT = 1
FOLDER = re.compile(r"trial-\d{1,9}")
AGAIN = "Make the ensemble again."


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Bundles that answer together: the mean of their probabilities, each with its weight."""

    folder: Path
    manifest: Mapping[str, Any]
    members: tuple[Bundle, ...]
    weights: tuple[float, ...]

    @property
    def task(self) -> Task:
        """The task of all members."""
        return self.members[0].task

    @property
    def prepared(self) -> Prepared:
        """What the first member's task fitted: their classes are the same, their tokens may differ."""
        return self.members[0].prepared

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the classes; empty where the task has none."""
        return self.members[0].labels

    def outputs(self, inputs: Sequence[Any]) -> np.ndarray:
        """The logarithm of the mean probabilities (N, ...) for raw inputs, at least one."""
        return averaged([each.outputs(inputs) for each in self.members], self.weights)

    def predict(self, inputs: Sequence[Any] | str) -> list[dict[str, Any]]:
        """Answer raw inputs as one bundle does. Raises BadInput for what the task cannot read."""
        listed = [inputs] if isinstance(inputs, str) else list(inputs)
        return self.task.answers(self.outputs(listed), self.prepared) if listed else []


def member_folder(trial: int) -> str:
    """Where the bundle of a member stands."""
    return f"trial-{trial}"


def write(folder: Path, weights: Mapping[int, float], facts: Mapping[str, Any]) -> None:
    """Write `ensemble.json`, `config.json` and the card for the bundles in a folder, with the weight of each trial, and
    bring them to the disk."""
    members = [
        {
            "folder": member_folder(trial),
            "trial": trial,
            "weight": weight,
            "manifest": sha256(folder / member_folder(trial) / MANIFEST),
        }
        for trial, weight in weights.items()
    ]
    of_texts = all((folder / member_folder(each) / "tokenizer.json").exists() for each in weights)
    (folder / CARD).write_text(card(facts, weights, of_texts), encoding="utf-8")
    plain = {"format": FORMAT, "members": members, "card": sha256(folder / CARD), **facts}
    (folder / ENSEMBLE).write_text(sealed(plain), encoding="utf-8")
    (folder / CONFIG).write_text(SAID, encoding="utf-8")
    for each in (CARD, ENSEMBLE, CONFIG):
        flush(folder / each)


def load_ensemble(folder: Path, *, compile: bool = False) -> Ensemble:
    """Load an ensemble, its models compiled if asked for. Raises BadInput where a file was changed, is missing, or
    cannot be used here."""
    plain = unsealed(folder / ENSEMBLE)
    if not _told(plain):
        raise BadInput(f"{folder / ENSEMBLE} is not of a format that this version reads.", AGAIN)
    _refuse_foreign(folder, {each["folder"] for each in plain["members"]})
    _refuse_changed(folder, plain)
    members = tuple(load(folder / each["folder"], compile=compile) for each in plain["members"])
    if len({(each.task.name, each.labels, each.prepared.outputs) for each in members}) > 1:
        raise BadInput(f"The members of {folder} do not answer the same question.", AGAIN)
    return Ensemble(folder, plain, members, tuple(each["weight"] for each in plain["members"]))


def _told(plain: Mapping[str, Any]) -> bool:
    """Whether all that a load relies on is there, and of its type."""
    members = plain.get("members")
    if plain.get("format") != FORMAT or not isinstance(plain.get("card"), str):
        return False
    if not isinstance(members, list) or len(members) < 2:
        return False
    if not all(isinstance(each, dict) and _told_of(each) for each in members):
        return False
    weights, folders = [each["weight"] for each in members], {each["folder"] for each in members}
    return len(folders) == len(members) and abs(sum(weights) - 1) < 1e-6


def _told_of(member: Mapping[str, Any]) -> bool:
    texts = isinstance(member.get("folder"), str) and isinstance(member.get("manifest"), str)
    weight = member.get("weight")
    return texts and bool(FOLDER.fullmatch(member["folder"])) and isinstance(weight, float) and 0 < weight <= 1


def _refuse_changed(folder: Path, plain: Mapping[str, Any]) -> None:
    """Refuse a card, a config.json or a member that is another one. Older ensembles have no config.json."""
    card, config = folder / CARD, folder / CONFIG
    if not card.is_file() or sha256(card) != plain["card"]:
        raise BadInput(f"{card} was changed after the ensemble was made.", COPY)
    if config.exists() and (not config.is_file() or config.read_bytes() != SAID.encode()):
        raise BadInput(f"{config} was changed after the ensemble was made.", COPY)
    for each in plain["members"]:
        manifest = folder / each["folder"] / MANIFEST
        if not manifest.is_file() or sha256(manifest) != each["manifest"]:
            raise BadInput(f"{folder / each['folder']} is not the member that the ensemble was made with.", COPY)


def _refuse_foreign(folder: Path, members: set[str]) -> None:
    """Refuse links, and what nobody vouches for; each bundle looks after its own files."""
    for each in folder.iterdir():
        if each.is_symlink():
            raise BadInput(f"{each} is a link, and an ensemble holds bundles alone.", COPY)
        if each.name not in {*members, ENSEMBLE, CARD, CONFIG}:
            raise BadInput(f"{each} does not belong to the ensemble.", "Delete it, or move it out of the folder.")
