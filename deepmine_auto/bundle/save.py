"""Save a bundle: under a temporary name, reloaded in a clean process and compared, and only then given its name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file
from torch import Tensor

from deepmine_auto.bundle import manifest, parity
from deepmine_auto.bundle.card import Story, card
from deepmine_auto.bundle.load import WEIGHTS
from deepmine_auto.contracts import Prepared
from deepmine_auto.errors import BadInput
from deepmine_auto.training.checkpoint import flush


@dataclass(frozen=True)
class Exported:
    """What goes into a bundle: weights, what the task fitted, the params they were made with, and their story."""

    weights: Mapping[str, Tensor]
    prepared: Prepared
    params: Mapping[str, Any]
    story: Story


def refuse_existing(folder: Path) -> None:
    """Raise BadInput if something already has this name."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"The output folder {folder} exists already.", "Give another --output, or move it away.")


def save(folder: Path, exported: Exported, inputs: Sequence[Any], outputs: np.ndarray) -> float:
    """Write the bundle and return the largest difference that its reload showed over `inputs`.

    Raises BadInput if the folder exists, NotEqual if the reloaded model differs; then nothing stands under that name.
    """
    refuse_existing(folder)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        _write(unfinished, exported)
        difference = parity.verify(unfinished, inputs, outputs)
        flush(unfinished)
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    flush(folder.parent)
    return difference


def _write(folder: Path, exported: Exported) -> None:
    save_file({name: each.detach().cpu().contiguous() for name, each in exported.weights.items()}, folder / WEIGHTS)
    exported.prepared.save(folder)
    (folder / "config.json").write_text(json.dumps(_config(exported), indent=1, ensure_ascii=False))
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=1))
    (folder / "README.md").write_text(card(exported.story), encoding="utf-8")
    manifest.write(folder, exported.story.provenance())


def _config(exported: Exported) -> dict[str, Any]:
    labels = list(getattr(getattr(exported.prepared, "fitted", None), "labels", ()))
    config: dict[str, Any] = {
        "model_type": "deepmine_auto",
        "architectures": ["DeepmineForSequenceClassification"],
        "pad_token_id": 0,
        "deepmine": {"task": exported.story.task, "params": dict(exported.params)},
    }
    if labels:
        config |= {"id2label": dict(enumerate(labels)), "label2id": {label: at for at, label in enumerate(labels)}}
    return config
