"""What all kinds of plugins share."""

from __future__ import annotations

from abc import ABC
from dataclasses import fields
from typing import Any, ClassVar


class Plugin(ABC):
    """What all kinds share: a name that is unique within the kind, and the paper or page that it follows."""

    kind: ClassVar[str]
    name: ClassVar[str]
    source: ClassVar[str]

    def work(self) -> float:
        """Return how many times as long a training takes with it, about; of a backbone, how long beside that with
        another one. The first trials of a search, for which no sampler has reasons yet, are tried cheapest first."""
        return 1.0

    def params(self) -> dict[str, Any]:
        """Return the field values, as they stand in a study's row."""
        return {each.name: getattr(self, each.name) for each in fields(self)}  # type: ignore[arg-type]
