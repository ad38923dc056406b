"""What stands before the blocks: token embedding, positions, short phrases.

Shapes: B batch, L length, D dim, V vocabulary, E dim of pretrained word vectors.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn


class TokenEmbedding(nn.Module):
    """A learned vector for each token; pretrained word vectors, where there are some, are projected to D."""

    def __init__(self, vocabulary: int, dim: int, vectors_VE: np.ndarray | None, train_vectors: bool) -> None:
        super().__init__()
        width = dim if vectors_VE is None else vectors_VE.shape[1]
        self.table = nn.Embedding(vocabulary, width, padding_idx=0)
        nn.init.normal_(self.table.weight, std=width**-0.5)
        self.project = nn.Identity() if vectors_VE is None else nn.Linear(width, dim)
        if vectors_VE is not None:
            self.table.weight.requires_grad_(train_vectors)
            if not self.table.weight.is_meta:  # there are no numbers, and torch would load its compiler to say so
                self._take(vectors_VE)

    def _take(self, vectors_VE: np.ndarray) -> None:
        known_V = np.abs(vectors_VE).sum(1) > 0
        weights = torch.from_numpy(vectors_VE[known_V]).to(self.table.weight.dtype)
        with torch.no_grad():
            self.table.weight *= weights.std() / self.table.weight.std()
            self.table.weight[torch.from_numpy(known_V)] = weights
            self.table.weight[0] = 0.0

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """Return (B, L, D)."""
        x_BLD: Tensor = self.project(self.table(tokens_BL))
        return x_BLD


def sinusoids(x_BLD: Tensor, first: int = 0) -> Tensor:
    """Positions from `first` on as sines and cosines of geometric wavelengths (arXiv:1706.03762), (L, D) like x."""
    length, dim = x_BLD.shape[1:]
    at_L1 = torch.arange(first, first + length, device=x_BLD.device, dtype=torch.float32)[:, None]
    rate_D = torch.exp(torch.arange(0, dim, 2, device=x_BLD.device) * (-math.log(10_000.0) / dim))
    waves = torch.stack((torch.sin(at_L1 * rate_D), torch.cos(at_L1 * rate_D)), -1)
    return waves.flatten(1)[:, :dim].to(x_BLD.dtype)


class Neighbours(nn.Module):
    """Each token with the one before and the one after it, added to itself: short phrases (arXiv:1408.5882)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(dim, dim, kernel_size=3, padding=1)

    def forward(self, x_BLD: Tensor, keep_BL: Tensor) -> Tensor:
        """Return (B, L, D); padding is no neighbour."""
        real_BLD = x_BLD * keep_BL[..., None]
        phrase_BLD: Tensor = self.convolution(real_BLD.transpose(1, 2)).transpose(1, 2)
        return x_BLD + nn.functional.gelu(phrase_BLD)
