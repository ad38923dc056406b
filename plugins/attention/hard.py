"""Hard attention: each query looks at one key alone; in training it draws that key, and gradients pass as if it had
mixed.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmine_auto import AttentionCore, AttentionShape, Caps, Cost, DenseAttention, Float, Mask, Mixed

HOT, COLD = 2.0, 0.1
"""The temperature at the start and at the end of training: gradients begin smooth, and end nearly exact."""


@dataclass(frozen=True, kw_only=True)
class Hard(AttentionCore):
    """In evaluation the key of the highest score; queries and keys then have no gradient. In training a key drawn by
    its softmax weight, with the straight-through Gumbel gradient (arXiv:1611.01144), and a loss `entropy` that rewards
    undecided heads by `bonus` a nat, mean over the tokens of a row. The temperature shapes gradients alone: draws do
    not depend on it."""

    name: ClassVar[str] = "hard"
    source: ClassVar[str] = "arXiv:1502.03044"
    caps: ClassVar[Caps] = Caps.everywhere(
        weights="exact", matrix=True, fit="finetune", decoding="kv", normalized=True, position_free=True, onnx=True
    )

    bonus: Annotated[float, Float(1e-4, 1e-1, log=True)] = 1e-2

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the module; it learns nothing, and its temperature falls as training proceeds."""
        return _Hard(self.bonus, crosses=shape.mode == "cross")

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Dense attention, with noise and an entropy for each score (some thirty operations)."""
        pairs = float(length**2 * shape.heads)
        return Cost(flops=pairs * (4.0 * shape.head_dim + 30.0), peak_bytes=20.0 * pairs)


class _Hard(DenseAttention):
    tau: Tensor

    def __init__(self, bonus: float, *, crosses: bool) -> None:
        super().__init__()
        self.bonus, self.crosses = bonus, crosses
        self.register_buffer("tau", torch.tensor(HOT))
        self.entropy_BHL: Tensor | None = None

    def step(self, done: float) -> None:
        """Cool down, by the same factor in each step."""
        self.tau.fill_(HOT * (COLD / HOT) ** done)

    def normalize(self, scores_BHLS: Tensor) -> Tensor:
        if not self.training:
            return torch.zeros_like(scores_BHLS).scatter_(-1, scores_BHLS.argmax(-1, keepdim=True), 1.0)
        self.entropy_BHL = _entropy(scores_BHLS)
        return F.gumbel_softmax(scores_BHLS, tau=float(self.tau), hard=True)

    def mix(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, modifiers: Iterable[nn.Module]) -> Mixed:
        mixed = super().mix(q_BHLK, k_BGSK, v_BGSK, mask, modifiers)
        # a tensor of a graph that stayed here could not be copied, as averaged models are
        entropy_BHL, self.entropy_BHL = self.entropy_BHL, None
        if entropy_BHL is None:
            return mixed
        keep = mask.allowed(q_BHLK.shape[2], k_BGSK.shape[2], q_BHLK.device)
        if keep is not None:
            entropy_BHL = entropy_BHL * keep.any(-1)  # a query that sees nothing was scored as if it saw all
        return mixed._replace(losses={"entropy": -self.bonus * self._mean(entropy_BHL.mean(1), mask)})

    def _mean(self, entropy_BL: Tensor, mask: Mask) -> Tensor:
        """Of rows, each by its tokens: where these look at each other, the padding is among those that look."""
        if mask.padding is None or self.crosses:
            return entropy_BL.mean()
        real_BL = mask.padding[:, -entropy_BL.shape[1] :]
        return ((entropy_BL * real_BL).sum(1) / real_BL.sum(1).clamp_min(1)).mean()


def _entropy(scores_BHLS: Tensor) -> Tensor:
    """The entropy of what is drawn, in nats."""
    log_BHLS = scores_BHLS.log_softmax(-1)
    return -(log_BHLS.exp() * log_BHLS.masked_fill(log_BHLS == -torch.inf, 0.0)).sum(-1)
