"""JSON files of a bundle, read with the care that a stranger's file needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from deepmine_auto.errors import BadInput

MOST_BYTES = 8_000_000
MODEL_TYPE = "deepmine_auto"
REMOTE_CODE = ("auto_map", "trust_remote_code", "custom_pipelines")
"""Keys that would ask a loader to run code from the folder; ours carry none, and none is accepted."""


class Read(NamedTuple):
    """A file's text and the object that it holds."""

    text: str
    plain: dict[str, Any]


def read_json(file: Path) -> Read:
    """Read an object from a file of at most 8 MB. Raises BadInput for anything else."""
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        text = file.read_bytes().decode()
        plain = json.loads(text)
        if not isinstance(plain, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{file} cannot be read: {error}.", "Export the bundle again.") from error
    return Read(text, plain)


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json. Raises BadInput if it is not ours, or asks, like the tokenizer's, for code at any depth."""
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).exists() and asks_for_code(read_json(folder / name).plain):
            raise BadInput(f"{folder / name} asks to run code of its own.", "Such a model is not loaded.")
    config = read_json(folder / "config.json").plain
    ours = config.get("deepmine")
    if config.get("model_type") != MODEL_TYPE or not isinstance(ours, dict) or {"task", "params"} - ours.keys():
        raise BadInput(
            f"{folder / 'config.json'} describes no model of ours.", "Load it with the library that made it."
        )
    return config


def asks_for_code(plain: object) -> bool:
    """Whether a key that would run code stands anywhere in it."""
    if isinstance(plain, dict):
        return any(key in REMOTE_CODE or asks_for_code(value) for key, value in plain.items())
    return isinstance(plain, list) and any(map(asks_for_code, plain))
