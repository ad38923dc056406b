"""A stack of blocks over embedded tokens: an encoder, where each token sees all, or a decoder, where it sees none that
comes later.

Shapes: B batch, L length, D dim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from deepmine_auto.contracts import START, AttentionShape, Mixed, Prepared
from deepmine_auto.errors import BadInput
from deepmine_auto.model.block import Block
from deepmine_auto.model.dropout import TextDropout
from deepmine_auto.model.embedding import Neighbours, TokenEmbedding, sinusoids
from deepmine_auto.model.mask import Mask

Attend = Callable[[AttentionShape], nn.Module]
"""What makes the token mixing of one layer."""


@dataclass(frozen=True, kw_only=True)
class StackDesign:
    """A stack apart from its attention: its depth, how much wider the feed-forward part is than D, dropout, whether
    positions are added, whether pretrained word vectors are trained on, whether each token first sees its neighbours
    (which a decoder may not)."""

    depth: int
    widen: int = 2
    dropout: float = 0.1
    positions: bool = True
    train_vectors: bool = False
    neighbours: bool = False


class Decoding(NamedTuple):
    """What a decoder goes on from: how many tokens it has seen, and the state of each layer."""

    seen: int
    layers: tuple[Any, ...]


class TransformerStack(nn.Module):
    """Pre-norm blocks over embedded tokens; `shape.mode` says whether a token sees what comes later."""

    def __init__(self, prepared: Prepared, attention: Attend, shape: AttentionShape, design: StackDesign) -> None:
        super().__init__()
        self.dim, self.causal = shape.dim, shape.mode == "causal"
        if self.causal and design.neighbours:
            raise BadInput("A decoder may not look at the next token.", "Set neighbours to false.")
        self.positions = design.positions
        self.embedding = TokenEmbedding(prepared.vocabulary, shape.dim, prepared.vectors_VE, design.train_vectors)
        self.neighbours = Neighbours(shape.dim) if design.neighbours else None
        self.dropout = TextDropout(design.dropout)
        shapes = [replace(shape, layer=layer) for layer in range(design.depth)]
        self.blocks = nn.ModuleList(Block(attention(each), shape.dim, design.widen, design.dropout) for each in shapes)
        self.norm = nn.LayerNorm(shape.dim)

    def forward(self, tokens_BL: Tensor, keep_BL: Tensor, *, weights: bool = False) -> Mixed:
        """Return out (B, L, D); the weights of the last layer, if asked for; losses summed over the layers by name."""
        mixed = Mixed(self.dropout(self._embedded(tokens_BL, keep_BL)))
        # a compiled program is one for all batches, and cannot look at what is in them
        whole = not torch.compiler.is_compiling() and bool(keep_BL.all())
        mask = Mask(padding=None if whole else keep_BL, causal=self.causal)
        losses: dict[str, Tensor] = {}
        for block in self.blocks:
            mixed, _ = block(mixed.out, mask, weights=weights)
            add_losses(losses, mixed)
        return Mixed(self.norm(mixed.out), mixed.weights, losses)

    def vectors(self, tokens_N: Tensor) -> Tensor:
        """What the stack knows of tokens before it reads a text, (N, D)."""
        vectors_ND: Tensor = self.embedding(tokens_N)
        return vectors_ND

    def _embedded(self, tokens_BL: Tensor, keep_BL: Tensor | None, first: int = 0) -> Tensor:
        x_BLD: Tensor = self.embedding(tokens_BL)
        if self.neighbours is not None:
            assert keep_BL is not None
            x_BLD = self.neighbours(x_BLD, keep_BL)
        return x_BLD + self.dim**-0.5 * sinusoids(x_BLD, first) if self.positions else x_BLD

    def decode(self, tokens_BL: Tensor, state: Decoding | None = None) -> tuple[Tensor, Decoding]:
        """Read the tokens that follow those seen so far; return out (B, L, D) of these alone, and the state to go on
        from. Equals `forward` over all of them. Raises Refused for variants that cannot decode."""
        seen, states = state or Decoding(0, (START,) * len(self.blocks))
        x_BLD, after = self._embedded(tokens_BL, None, seen), []
        for block, each in zip(self.blocks, states, strict=True):
            mixed, new = block(x_BLD, Mask(causal=True), each)
            x_BLD = mixed.out
            after.append(new)
        return self.norm(x_BLD), Decoding(seen + tokens_BL.shape[1], tuple(after))


def add_losses(losses: dict[str, Tensor], mixed: Mixed) -> None:
    """Add a layer's losses to those of the layers before."""
    for name, loss in mixed.losses.items():
        losses[name] = losses[name] + loss if name in losses else loss
