"""The top learns; what lies below keeps what it knows, and takes no gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import nn

from deepmine_auto import Int, Tuning, blocks_of


@dataclass(frozen=True, kw_only=True)
class TopLayers(Tuning):
    """So many blocks learn, and the head; with 0 the head alone does. All else is frozen, a norm after the last block
    too."""

    name: ClassVar[str] = "top_layers"
    source: ClassVar[str] = "arXiv:1911.03090"
    rate: ClassVar[float] = 2e-4
    counts: ClassVar[str] = "layers"

    layers: Annotated[int, Int(0, 12)] = 2

    def apply(self, model: nn.Module) -> None:
        """Freeze all but the highest blocks. Raises BadInput where the model has none."""
        blocks = blocks_of(model)
        learning = {id(each) for block in blocks[max(0, len(blocks) - self.layers) :] for each in block.parameters()}
        for each in model.parameters():
            if id(each) not in learning:
                each.requires_grad_(False)

    def work(self) -> float:
        """Return what is left of a dozen layers: what lies below the learning ones is computed once, and kept."""
        return (1 + self.layers) / 13
