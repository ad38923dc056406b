"""No decay: the learning rate stays as high as it rose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from deepmine_auto import Schedule


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """What other schedules are compared with."""

    name: ClassVar[str] = "constant"
    source: ClassVar[str] = "https://huggingface.co/docs/transformers/main_classes/optimizer_schedules"

    def factor(self, done: float) -> float:
        """Stay at the height."""
        del done
        return 1.0
