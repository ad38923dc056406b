"""The top learns; what lies below keeps what it knows, and takes no gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import nn

from deepmine_auto import Int, Tuning, blocks_of


@dataclass(frozen=True, kw_only=True)
class TopLayers(Tuning):
    """So many blocks learn, and the head; with 0 the head alone does. All else is frozen, a norm after the last block
    too, and what drops out there is still, so that it says the same of a text every time; but for the few models that
    drop out without a module for it."""

    name: ClassVar[str] = "top_layers"
    source: ClassVar[str] = "arXiv:1911.03090"
    rate: ClassVar[float] = 2e-4
    counts: ClassVar[str] = "layers"

    layers: Annotated[int, Int(0, 12)] = 2

    def apply(self, model: nn.Module) -> None:
        """Freeze all but the highest blocks. Raises BadInput where the model has none."""
        blocks = blocks_of(model)
        learning = {id(each) for block in blocks[max(0, len(blocks) - self.layers) :] for each in block.modules()}
        for module in model.modules():
            if id(module) not in learning:
                _freeze(module)

    def work(self) -> float:
        """Return what is left of a dozen layers: what lies below the learning ones is computed once, and kept."""
        return (1 + self.layers) / 13


def _freeze(module: nn.Module) -> None:
    for each in module.parameters(recurse=False):
        each.requires_grad_(False)
    if isinstance(module, nn.Dropout):
        module.p = 0.0
