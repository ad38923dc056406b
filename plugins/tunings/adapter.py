"""Bottleneck adapters: a small network after a frozen part of a block.

Shapes: B batch, L length, D dim, R the bottleneck.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import Choice, Tuning, ends_of, top_blocks, wrap


class _Bottleneck(nn.Module):
    """A layer, and what is added to its output; it begins with adding nothing."""

    def __init__(self, base_layer: nn.Linear, size: int) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.down = nn.Linear(base_layer.out_features, size)
        self.up = nn.Linear(size, base_layer.out_features)
        with torch.no_grad():
            self.up.weight.zero_()
            self.up.bias.zero_()

    @property
    def weight(self) -> Tensor:
        """The layer's own, whose dtype some models ask for."""
        return self.base_layer.weight

    def forward(self, x_BLD: Tensor) -> Tensor:
        out_BLD: Tensor = self.base_layer(x_BLD)
        added_BLD: Tensor = self.up(nn.functional.gelu(self.down(out_BLD)))
        return out_BLD + added_BLD


@dataclass(frozen=True, kw_only=True)
class Pfeiffer(Tuning):
    """One adapter a block, after its feed-forward part, in the highest share `top` of the blocks, at least one."""

    name: ClassVar[str] = "pfeiffer"
    source: ClassVar[str] = "arXiv:2005.00247"

    size: Annotated[int, Choice(8, 16, 32, 64)] = 32
    top: Annotated[float, Choice(0.25, 0.5, 1.0)] = 1.0

    def apply(self, model: nn.Module) -> None:
        """Freeze the model, and put the adapters into it. Raises BadInput where a block has no such parts."""
        model.requires_grad_(False)
        for block in top_blocks(model, self.top):
            for name in self.places(block):
                wrap(block, name, lambda layer: _Bottleneck(layer, self.size))

    def places(self, block: nn.Module) -> tuple[str, ...]:
        """The layers of a block that get an adapter."""
        return ends_of(block)[1:]


@dataclass(frozen=True, kw_only=True)
class Houlsby(Pfeiffer):
    """Two adapters a block, after its attention and after its feed-forward part, in the same blocks as `pfeiffer`."""

    name: ClassVar[str] = "houlsby"
    source: ClassVar[str] = "arXiv:1902.00751"

    def places(self, block: nn.Module) -> tuple[str, ...]:
        """The layers of a block that get an adapter."""
        return ends_of(block)
