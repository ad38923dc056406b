"""LoRA that learns the length of each column apart from its direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .lora import Lora


@dataclass(frozen=True, kw_only=True)
class Dora(Lora):
    """Nearer to full fine-tuning at small ranks, and slower."""

    name: ClassVar[str] = "dora"
    source: ClassVar[str] = "arXiv:2402.09353"
    form: ClassVar[dict[str, Any]] = {"use_dora": True}
