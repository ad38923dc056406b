"""The feed-forward half of a block: each token by itself.

Shapes: B batch, L length, D dim, F feed-forward.
"""

from torch import Tensor, nn

from deepmine_auto.model.dropout import TextDropout


class FeedForward(nn.Module):
    """Widen, bend, narrow (arXiv:1706.03762), with GELU (arXiv:1606.08415)."""

    def __init__(self, dim: int, widen: int, dropout: float) -> None:
        super().__init__()
        self.up = nn.Linear(dim, widen * dim)
        self.down = nn.Linear(widen * dim, dim)
        self.dropout = TextDropout(dropout)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Return (B, L, D)."""
        out_BLD: Tensor = self.down(self.dropout(nn.functional.gelu(self.up(x_BLD))))
        return out_BLD
