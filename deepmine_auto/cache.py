"""What was measured or checked once on this machine. Every file here may be deleted at any time."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def folder() -> Path:
    """Where it is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deepmine-auto"


def read(name: str) -> dict[str, Any]:
    """What stands under a name; nothing where that is missing or spoilt."""
    try:
        found = json.loads((folder() / f"{name}.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write(name: str, found: Mapping[str, Any]) -> None:
    """Keep it if that can be: what cannot be written costs a few seconds the next time."""
    unfinished = folder() / f".{name}.{os.getpid()}"
    try:
        folder().mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(found, indent=1))
        unfinished.replace(folder() / f"{name}.json")
    except OSError:
        return
