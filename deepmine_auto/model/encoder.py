"""The encoder: token embedding, positions, blocks.

Shapes: B batch, L length, D dim, V vocabulary, E dim of pretrained word vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from deepmine_auto.contracts import AttentionShape, Mixed, Prepared
from deepmine_auto.model.block import Block
from deepmine_auto.model.dropout import TextDropout
from deepmine_auto.model.mask import Mask


class TokenEmbedding(nn.Module):
    """A learned vector for each token; pretrained word vectors, where there are some, are projected to D."""

    def __init__(self, vocabulary: int, dim: int, vectors_VE: np.ndarray | None, train_vectors: bool) -> None:
        super().__init__()
        width = dim if vectors_VE is None else vectors_VE.shape[1]
        self.table = nn.Embedding(vocabulary, width, padding_idx=0)
        nn.init.normal_(self.table.weight, std=width**-0.5)
        self.project = nn.Identity() if vectors_VE is None else nn.Linear(width, dim)
        if vectors_VE is not None:
            self._take(vectors_VE, train_vectors)

    def _take(self, vectors_VE: np.ndarray, train: bool) -> None:
        known_V = np.abs(vectors_VE).sum(1) > 0
        weights = torch.from_numpy(vectors_VE[known_V]).to(self.table.weight.dtype)
        with torch.no_grad():
            self.table.weight *= weights.std() / self.table.weight.std()
            self.table.weight[torch.from_numpy(known_V)] = weights
            self.table.weight[0] = 0.0
        self.table.weight.requires_grad_(train)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """Return (B, L, D)."""
        x_BLD: Tensor = self.project(self.table(tokens_BL))
        return x_BLD


def sinusoids(length: int, dim: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Positions as sines and cosines of geometric wavelengths (arXiv:1706.03762), (L, D)."""
    at_L1 = torch.arange(length, device=device, dtype=torch.float32)[:, None]
    rate_D = torch.exp(torch.arange(0, dim, 2, device=device) * (-math.log(10_000.0) / dim))
    waves = torch.stack((torch.sin(at_L1 * rate_D), torch.cos(at_L1 * rate_D)), -1)
    return waves.flatten(1)[:, :dim].to(dtype)


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


class TransformerEncoder(nn.Module):
    """Pre-norm blocks over embedded tokens. `attention(shape)` makes the token mixing of one layer."""

    def __init__(
        self,
        prepared: Prepared,
        attention: Callable[[AttentionShape], nn.Module],
        shape: AttentionShape,
        *,
        depth: int,
        widen: int = 2,
        dropout: float = 0.1,
        positions: bool = True,
        train_vectors: bool = False,
        neighbours: bool = False,
    ) -> None:
        super().__init__()
        self.dim = shape.dim
        self.positions = positions
        self.embedding = TokenEmbedding(prepared.vocabulary, shape.dim, prepared.vectors_VE, train_vectors)
        self.neighbours = Neighbours(shape.dim) if neighbours else None
        self.dropout = TextDropout(dropout)
        shapes = [AttentionShape(**{**vars(shape), "layer": layer}) for layer in range(depth)]
        self.blocks = nn.ModuleList(Block(attention(each), shape.dim, widen, dropout) for each in shapes)
        self.norm = nn.LayerNorm(shape.dim)

    def forward(self, tokens_BL: Tensor, keep_BL: Tensor, *, weights: bool = False) -> Mixed:
        """Return out (B, L, D); the weights of the last layer, if asked for; losses summed over the layers by name."""
        x_BLD = self.embedding(tokens_BL)
        if self.neighbours is not None:
            x_BLD = self.neighbours(x_BLD, keep_BL)
        if self.positions:
            scale = self.dim**-0.5
            x_BLD = x_BLD + scale * sinusoids(x_BLD.shape[1], self.dim, x_BLD.device, x_BLD.dtype)
        mixed = Mixed(self.dropout(x_BLD))
        mask = Mask(padding=None if bool(keep_BL.all()) else keep_BL)
        losses: dict[str, Tensor] = {}
        for block in self.blocks:
            mixed = block(mixed.out, mask, weights=weights)
            for name, loss in mixed.losses.items():
                losses[name] = losses[name] + loss if name in losses else loss
        return Mixed(self.norm(mixed.out), mixed.weights, losses, mixed.statistics)
