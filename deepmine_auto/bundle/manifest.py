"""The manifest: the sha256 of every file of a bundle and of itself, so that a changed byte is refused before a file is
read. It tells damage, not authorship: what a stranger sends is checked beyond it (`weights.py`, `plain.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepmine_auto.bundle.plain import read_json
from deepmine_auto.disk import flush, sha256
from deepmine_auto.errors import BadInput

MANIFEST = "manifest.json"
PLUGIN = {"kind", "name", "distribution", "version", "hash"}
NEEDED = ("config.json", "model.safetensors")
COPY = "Copy the whole folder anew, or export the bundle again."


def write(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the manifest of all files in a folder, with facts about where it comes from, and bring all to the disk."""
    files = {each.name: sha256(each) for each in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(sealed({**facts, "files": files}), encoding="utf-8")
    for each in folder.iterdir():
        flush(each)


def checked(folder: Path) -> dict[str, Any]:
    """Read the manifest and check every file. Raises BadInput for what is no bundle, or not as it was."""
    if not os.path.isfile(folder / MANIFEST):  # a name that is too long is none either
        remedy = "Name the folder that `deepmine-auto search` or `export` made."
        raise BadInput(f"{folder} is no bundle: it has no {MANIFEST}.", remedy)
    manifest = unsealed(folder / MANIFEST)
    if not _told(manifest):
        raise BadInput(f"{folder / MANIFEST} does not tell what a bundle's manifest must.", "Export the bundle again.")
    files: Mapping[str, str] = manifest["files"]
    _refuse_foreign(folder, files)
    for name, hashed in files.items():
        if sha256(folder / name) != hashed:
            raise BadInput(f"{folder / name} was changed after the bundle was made.", COPY)
    return manifest


def sealed(plain: Mapping[str, Any]) -> str:
    """The text of a manifest, or of another file that vouches for a folder; its last key is the sha256 of all the
    others, so that no byte of it can change either."""
    seal = hashlib.sha256(_rendered(plain).encode()).hexdigest()
    return _rendered({**plain, "seal": seal})


def _rendered(plain: Mapping[str, Any]) -> str:
    return json.dumps(plain, indent=1)


def unsealed(file: Path) -> dict[str, Any]:
    """Read what `sealed` returned, without the seal. Raises BadInput where a byte of it is another."""
    text, plain = read_json(file)
    plain.pop("seal", None)
    if text != sealed(plain):
        raise BadInput(f"{file} was changed after the bundle was made.", COPY)
    return plain


def _told(plain: Mapping[str, Any]) -> bool:
    """Whether all that a load relies on is there, and of its type."""
    kinds = {"files": dict, "versions": dict, "plugins": list, "probe": list}
    if not all(isinstance(plain.get(name), kind) for name, kind in kinds.items()):
        return False
    plugins = all(isinstance(each, dict) and each.keys() >= PLUGIN for each in plain["plugins"])
    return plugins and all(isinstance(each, float) for each in plain["probe"])


def _refuse_foreign(folder: Path, files: Mapping[str, str]) -> None:
    """Refuse links, folders, and files that are missing or that nobody vouches for."""
    here = {each.name: each for each in folder.iterdir()}
    for name, each in here.items():
        if each.is_symlink() or not each.is_file():
            raise BadInput(f"{each} is a link or a folder, and a bundle holds plain files alone.", COPY)
        if name not in files and name != MANIFEST:
            raise BadInput(f"{each} does not belong to the bundle.", "Delete it, or move it out of the folder.")
    for name in (*NEEDED, *files):
        if name not in here or name not in files:
            raise BadInput(f"The bundle {folder} has no file '{name}'.", COPY)
