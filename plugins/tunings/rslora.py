"""LoRA divided by the root of its rank, so that large ranks learn as fast as small ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .lora import Lora


@dataclass(frozen=True, kw_only=True)
class RsLora(Lora):
    """For ranks that LoRA itself would divide away."""

    name: ClassVar[str] = "rslora"
    source: ClassVar[str] = "arXiv:2312.03732"
    form: ClassVar[dict[str, Any]] = {"use_rslora": True}
