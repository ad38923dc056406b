"""The manifest: the sha256 of every file of a bundle, so that a changed byte is refused before anything is read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepmine_auto.errors import BadInput

MANIFEST = "manifest.json"
REMOTE_CODE = ("auto_map", "trust_remote_code")
"""Keys that would ask a loader to run code from the folder; ours carry none, and none is accepted."""


def write(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the manifest of all files in a folder, with facts about where it comes from."""
    from deepmine_auto.training.checkpoint import flush, sha256

    files = {each.name: sha256(each) for each in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps({**facts, "files": files}, indent=1, ensure_ascii=False))
    for each in folder.iterdir():
        flush(each)


def checked(folder: Path) -> dict[str, Any]:
    """Read the manifest and check every file. Raises BadInput for a folder that is no bundle, or not as it was written."""
    if not (folder / MANIFEST).is_file():
        raise BadInput(
            f"{folder} is no bundle: it has no {MANIFEST}.", "Name the folder that `search` or `export` made."
        )
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        files: Mapping[str, str] = manifest["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{folder / MANIFEST} is damaged.", "Export the bundle again.") from error
    for name, hashed in files.items():
        _check(folder, name, hashed)
    return manifest


def _check(folder: Path, name: str, hashed: str) -> None:
    from deepmine_auto.training.checkpoint import sha256

    file = folder / name
    if os.path.basename(name) != name or file.is_symlink() or not file.is_file():
        raise BadInput(f"The bundle {folder} has no file '{name}'.", "Copy the whole folder, or export it again.")
    if sha256(file) != hashed:
        raise BadInput(f"{file} was changed after the bundle was made.", "Copy it anew, or export the bundle again.")


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json. Raises BadInput if it asks for code of its own at any depth."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    if _asks_for_code(config):
        raise BadInput(f"{folder / 'config.json'} asks to run code of its own.", "Such a model is not loaded.")
    return config


def _asks_for_code(plain: object) -> bool:
    if isinstance(plain, dict):
        return any(key in REMOTE_CODE or _asks_for_code(value) for key, value in plain.items())
    return isinstance(plain, list) and any(map(_asks_for_code, plain))
