"""Last layers: from token vectors to what a task's loss takes.

Shapes: B batch, L length, D dim, C classes.
"""

import torch
from torch import Tensor, nn


class AttentionPool(nn.Module):
    """One vector a text: a learned score for each token, softmax over the real ones (arXiv:1703.03130, one hop)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.score = nn.Linear(dim, 1)

    def forward(self, x_BLD: Tensor, keep_BL: Tensor) -> Tensor:
        """Return (B, D)."""
        score_BL = self.score(x_BLD).squeeze(-1).masked_fill(~keep_BL, -torch.inf)
        pooled_BD: Tensor = (score_BL.softmax(-1)[..., None] * x_BLD).sum(1)
        return pooled_BD


class ClassifierHead(nn.Module):
    """Attention pooling beside the maximum over tokens, dropout, and one score a class."""

    def __init__(self, dim: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.pool = AttentionPool(dim)
        self.dropout = nn.Dropout(dropout)
        self.to_classes = nn.Linear(2 * dim, classes)

    def forward(self, x_BLD: Tensor, keep_BL: Tensor) -> Tensor:
        """Return (B, C)."""
        strongest_BD = x_BLD.masked_fill(~keep_BL[..., None], -torch.inf).amax(1)
        pooled_BD = torch.cat((self.pool(x_BLD, keep_BL), strongest_BD), -1)
        logits_BC: Tensor = self.to_classes(self.dropout(pooled_BD))
        return logits_BC
