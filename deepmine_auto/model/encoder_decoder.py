"""Encoder and decoder with cross-attention between them (arXiv:1706.03762).

Shapes: B batch, L length, S source length, T target length, D dim.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from deepmine_auto.contracts import AttentionShape, Mixed, Prepared
from deepmine_auto.errors import BadInput
from deepmine_auto.model.block import CrossBlock
from deepmine_auto.model.dropout import TextDropout
from deepmine_auto.model.embedding import sinusoids
from deepmine_auto.model.mask import Mask
from deepmine_auto.model.sides import sides
from deepmine_auto.model.stack import Attend, StackDesign, TransformerStack, add_losses


def separator_of(prepared: Prepared) -> int:
    """The token between source and target. Raises BadInput where a task has none."""
    found = getattr(prepared, "separator", None)
    if found is None:
        raise BadInput("This task has no source and target to take apart.", "Use the encoder or the decoder.")
    return int(found)


class PairOfStacks(nn.Module):
    """An encoder reads the source; a decoder of as many blocks reads the target so far, and the source through them.
    Both sides share one token table."""

    def __init__(self, prepared: Prepared, attention: Attend, shape: AttentionShape, design: StackDesign) -> None:
        super().__init__()
        self.dim, self.separator = shape.dim, separator_of(prepared)
        self.encoder = TransformerStack(prepared, attention, replace(shape, mode="bidirectional"), design)
        self.dropout = TextDropout(design.dropout)
        self.blocks = nn.ModuleList(self._block(attention, shape, layer, design) for layer in range(design.depth))
        self.norm = nn.LayerNorm(shape.dim)

    @staticmethod
    def _block(attention: Attend, shape: AttentionShape, layer: int, design: StackDesign) -> CrossBlock:
        own, cross = (attention(replace(shape, mode=mode, layer=layer)) for mode in ("causal", "cross"))
        return CrossBlock(own, cross, shape.dim, design.widen, design.dropout)

    def forward(self, tokens_BL: Tensor, keep_BL: Tensor, *, weights: bool = False) -> Mixed:
        """Return out (B, L, D), zero where the source stands; the weights (B, H, T, S) of the last layer."""
        both = sides(tokens_BL, keep_BL, self.separator)
        encoded = self.encoder(both.source_BS, both.keep_BS)
        x_BTD = self.encoder.embedding(both.target_BT)
        mixed = Mixed(self.dropout(x_BTD + self.dim**-0.5 * sinusoids(x_BTD)))
        own, source = Mask(padding=both.keep_BT, causal=True), Mask(padding=both.keep_BS)
        losses = dict(encoded.losses)
        for block in self.blocks:
            mixed = block(mixed.out, own, encoded.out, source, weights=weights)
            add_losses(losses, mixed)
        return Mixed(both.back(self.norm(mixed.out), tokens_BL.shape[1]), mixed.weights, losses)
