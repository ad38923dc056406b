"""L2 attention: a query looks at the keys that lie near it.

Shapes: B batch, H heads, L length, S source length, K dim of one head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import AttentionCore, AttentionShape, Caps, DenseAttention, Float


@dataclass(frozen=True, kw_only=True)
class L2(AttentionCore):
    """Softmax over minus the squared distance of query and key, divided by `width` times the square root of K."""

    name: ClassVar[str] = "l2"
    source: ClassVar[str] = "arXiv:2006.04710"
    caps: ClassVar[Caps] = Caps.everywhere(
        weights="exact", matrix=True, fit="finetune", decoding="kv", normalized=True, position_free=True
    )

    width: Annotated[float, Float(0.5, 4.0, log=True)] = 1.0

    def build(self, shape: AttentionShape) -> nn.Module:
        """Return a dense attention with another score."""
        return _Near(self.width)


class _Near(DenseAttention):
    def __init__(self, width: float) -> None:
        super().__init__()
        self.width = width

    def score(self, q_BHLK: Tensor, k_BHSK: Tensor) -> Tensor:
        dots_BHLS = q_BHLK @ k_BHSK.transpose(-1, -2)
        distances_BHLS = q_BHLK.square().sum(-1)[..., None] + k_BHSK.square().sum(-1)[..., None, :] - 2 * dots_BHLS
        return -distances_BHLS / (self.width * torch.tensor(q_BHLK.shape[-1]).sqrt())
