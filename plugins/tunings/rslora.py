"""LoRA divided by the root of its rank, so that large ranks learn as fast as small ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from .lora import Lora

ALIKE = 8
"""The rank at which it is what LoRA is."""


@dataclass(frozen=True, kw_only=True)
class RsLora(Lora):
    """The product counts `scale` times at rank 8, as in LoRA, and in proportion to 1 / sqrt(rank) at others: what many
    ranks add up to neither vanishes nor explodes."""

    name: ClassVar[str] = "rslora"
    source: ClassVar[str] = "arXiv:2312.03732"
    form: ClassVar[dict[str, Any]] = {"use_rslora": True}

    def alpha(self) -> float:
        """Return what the root of the rank divides, which is the same for all ranks."""
        return self.scale * math.sqrt(ALIKE)
