"""Save a bundle: under a temporary name, reloaded in a clean process and compared, and only then given its name."""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepmine_auto import failpoints
from deepmine_auto.bundle import manifest, parity
from deepmine_auto.bundle.card import Story, card
from deepmine_auto.bundle.plain import MODEL_TYPE
from deepmine_auto.bundle.probe import probe, separator_for
from deepmine_auto.bundle.weights import WEIGHTS, save_weights
from deepmine_auto.classification import TextPrepared
from deepmine_auto.contracts import Prepared
from deepmine_auto.disk import FULL, code_of, flush
from deepmine_auto.errors import BadInput, DeepmineError
from deepmine_auto.host import the_host
from deepmine_auto.model.assemble import build_model, task_of

MAKE_ROOM = "Make room, and run the same command again; a search goes on with deepmine-auto resume."

BESIDE_WEIGHTS = 20_000_000
"""Bytes of a bundle beside its weights: tokenizers are the largest."""


@dataclass(frozen=True)
class Exported:
    """What goes into a bundle: weights, what the task fitted, the params they were made with, and their story."""

    weights: Mapping[str, Tensor]
    prepared: Prepared
    params: Mapping[str, Any]
    story: Story


def refuse_existing(folder: Path) -> None:
    """Raise BadInput if something already has this name."""
    if os.path.islink(folder) or (os.path.exists(folder) and (not os.path.isdir(folder) or any(folder.iterdir()))):
        raise BadInput(f"The output folder {folder} exists already.", "Give another --output, or move it away.")


def refuse_unmakeable(folder: Path) -> None:
    """Raise BadInput if no folder of this name can be made, or written into."""
    nearest = _nearest(folder)
    if not os.path.isdir(nearest) or not os.access(nearest, os.W_OK | os.X_OK):
        raise BadInput(f"Nothing can be written in {nearest}.", "Give another --output.")


def refuse_without_room(folder: Path, model: nn.Module) -> None:
    """Raise DeepmineError if the disk has no room for a model's bundle. Ask before the locked test is opened."""
    weights = model.state_dict().values()  # one that is shared is written under each of its names
    needed, nearest = sum(each.nbytes for each in weights) + BESIDE_WEIGHTS, _nearest(folder)
    if shutil.disk_usage(nearest).free < needed:
        raise DeepmineError(f"There is no room for {folder}, which takes {needed / 1e6:,.0f} MB.", MAKE_ROOM)


def _nearest(folder: Path) -> Path:
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if os.path.exists(each))


def save(folder: Path, exported: Exported, inputs: Sequence[Any], outputs: np.ndarray) -> float:
    """Write the bundle and return the largest difference that its reload showed over `inputs`.

    Raises BadInput if the folder exists or cannot be made, NotEqual if the reloaded model differs; then nothing stands
    under that name.
    """
    with named_when_whole(folder) as unfinished:
        _write(unfinished, exported)
        failpoints.reach("mid_export")
        return parity.verify(unfinished, inputs, outputs)


@contextmanager
def named_when_whole(folder: Path) -> Iterator[Path]:
    """A hidden folder to write into, which gets its name at the end; after an error nothing stands under that name.

    Raises BadInput if the folder exists or cannot be made, DeepmineError if there is no room.
    """
    folder = folder.absolute()
    refuse_existing(folder)
    hidden = f".{folder.name}.deepmine-auto-unfinished-"  # nobody else names a folder so, and those are deleted
    for left in folder.parent.glob(f"{glob.escape(hidden)}*"):  # of an export that was killed
        process = left.name.removeprefix(hidden)
        if process.isdecimal() and not Path(f"/proc/{process}").exists():
            shutil.rmtree(left, ignore_errors=True)
    unfinished = folder.with_name(f"{hidden}{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
    except OSError as error:
        raise BadInput(f"{folder} cannot be made: {error.strerror}.", "Give another --output.") from error
    try:
        yield unfinished
        flush(unfinished)
        unfinished.rename(folder)
    except BaseException as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        if isinstance(error, Exception) and code_of(error) in FULL:
            raise DeepmineError(f"There is no room for {folder}.", MAKE_ROOM) from error
        raise
    flush(folder.parent)


def _write(folder: Path, exported: Exported) -> None:
    save_weights(folder / WEIGHTS, exported.weights)
    exported.prepared.save(folder)
    _write_json(folder / "config.json", _config(exported))
    if isinstance(exported.prepared, TextPrepared):
        _write_json(folder / "tokenizer_config.json", _tokenizer(exported.prepared))
    told = card(exported.story, isinstance(exported.prepared, TextPrepared))
    (folder / "README.md").write_text(told, encoding="utf-8")
    for each in folder.iterdir():  # safetensors makes its files private, which a service of another user cannot read
        each.chmod((folder / "README.md").stat().st_mode)
    manifest.write(folder, {**exported.story.provenance(), "probe": _probe(exported)})


def _probe(exported: Exported) -> list[float]:
    """The probe of a model that is built from params and weights alone, as every load will build it."""
    host = the_host()
    with torch.random.fork_rng(devices=[]):
        model = build_model(
            exported.params, task_of(exported.story.task, exported.params, host), exported.prepared, host
        )
    model.load_state_dict(exported.weights)
    separator = separator_for(exported.params, exported.prepared, host)
    return probe(model, exported.prepared.vocabulary, separator)


def _config(exported: Exported) -> dict[str, Any]:
    config: dict[str, Any] = {
        "model_type": MODEL_TYPE,
        "pad_token_id": 0,
        "dtype": "float32",
        "deepmine": {"task": exported.story.task, "params": dict(exported.params)},
    }
    if isinstance(exported.prepared, TextPrepared):
        # no label2id: a label may be any text, and keys of this file are checked; `hf` turns id2label around
        config["architectures"] = ["DeepmineForSequenceClassification"]
        config["pad_token_id"] = exported.prepared.tokenizer.token_to_id(exported.prepared.padding)
        config["id2label"] = dict(enumerate(exported.prepared.fitted.labels))
    return config


def _tokenizer(prepared: TextPrepared) -> dict[str, Any]:
    """What transformers must know beside tokenizer.json: "[PAD]" in a user's text is text, and long texts are cut."""
    unknown = {} if prepared.architecture else {"unk_token": "[UNK]"}
    return {
        "tokenizer_class": "DeepmineTokenizer",
        "model_max_length": prepared.fitted.max_len,
        "pad_token": prepared.padding,
        **unknown,
        "split_special_tokens": True,
    }


def _write_json(file: Path, plain: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
