"""A pre-norm block (arXiv:2002.04745): attention, then feed-forward, each added to what it read.

Shapes: B batch, L length, S source length, D dim.
"""

from __future__ import annotations

from typing import Any

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

    def forward(self, x_BLD: Tensor, mask: Mask, state: Any = None, *, weights: bool = False) -> tuple[Mixed, Any]:
        """Return out (B, L, D), with the weights and losses of the attention, and the state that decoding goes on
        from."""
        mixed, state = self.look(x_BLD, mask, state, weights=weights)
        return mixed._replace(out=self.think(mixed.out)), state

    def look(self, x_BLD: Tensor, mask: Mask, state: Any = None, *, weights: bool = False) -> tuple[Mixed, Any]:
        """The first half, attention."""
        mixed, state = self.mixing(self.before_mixing(x_BLD), mask, state, weights=weights)
        return mixed._replace(out=x_BLD + self.dropout(mixed.out)), state

    def think(self, x_BLD: Tensor) -> Tensor:
        """The second half, feed-forward."""
        out_BLD: Tensor = x_BLD + self.dropout(self.feed_forward(self.before_feed_forward(x_BLD)))
        return out_BLD


class CrossBlock(nn.Module):
    """A block that looks at its own past, then at a source, then thinks (arXiv:1706.03762)."""

    def __init__(self, mixing: nn.Module, crossing: nn.Module, dim: int, widen: int, dropout: float) -> None:
        super().__init__()
        self.own = Block(mixing, dim, widen, dropout)
        self.before_crossing = nn.LayerNorm(dim)
        self.crossing = crossing

    def forward(self, x_BLD: Tensor, mask: Mask, source_BSD: Tensor, source: Mask, *, weights: bool) -> Mixed:
        """Return out (B, L, D), with the weights (B, H, L, S) of what looks at the source, and the losses of both."""
        mixed, _ = self.own.look(x_BLD, mask)
        asking_BLD = self.before_crossing(mixed.out)
        crossed, _ = self.crossing(asking_BLD, source, None, weights=weights, source_BSD=source_BSD)
        out_BLD = self.own.think(mixed.out + self.own.dropout(crossed.out))
        losses = dict(mixed.losses)
        for name, loss in crossed.losses.items():
            losses[name] = losses[name] + loss if name in losses else loss
        return Mixed(out_BLD, crossed.weights, losses)
