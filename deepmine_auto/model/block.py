"""A pre-norm block (arXiv:2002.04745): attention, then feed-forward, each added to what it read.

Shapes: B batch, L length, D dim.
"""

from __future__ import annotations

from torch import Tensor, nn

from deepmine_auto.contracts import Mixed
from deepmine_auto.model.dropout import TextDropout
from deepmine_auto.model.feed_forward import FeedForward
from deepmine_auto.model.mask import Mask


class Block(nn.Module):
    """Token mixing and feed-forward with their norms; dropout falls on what is added, never on attention weights,
    because dropout there would leave the fused kernel."""

    def __init__(self, mixing: nn.Module, dim: int, widen: int, dropout: float) -> None:
        super().__init__()
        self.mixing = mixing
        self.before_mixing = nn.LayerNorm(dim)
        self.before_feed_forward = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, widen, dropout)
        self.dropout = TextDropout(dropout)

    def forward(self, x_BLD: Tensor, mask: Mask, *, weights: bool = False) -> Mixed:
        """Return out (B, L, D), with the weights and losses of the attention."""
        mixed, _ = self.mixing(self.before_mixing(x_BLD), mask, None, weights=weights)
        x_BLD = x_BLD + self.dropout(mixed.out)
        x_BLD = x_BLD + self.dropout(self.feed_forward(self.before_feed_forward(x_BLD)))
        return Mixed(x_BLD, mixed.weights, mixed.losses, mixed.statistics)
