"""VeRA: beside each frozen matrix stand two random ones, and learned gains between and after them.

Shapes: B batch, L length, I and O what a layer reads and writes, R rank, N and M rows and columns of a random matrix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import Choice, Tuning, linears_of, wrap


@dataclass(frozen=True, kw_only=True)
class Vera(Tuning):
    """Layers of one size share their random matrices, which are drawn again from the same seed wherever the model is
    built. Fewer weights than LoRA by far, in the highest share `top` of the blocks, at least one; it wants a large
    learning rate."""

    name: ClassVar[str] = "vera"
    source: ClassVar[str] = "arXiv:2310.11454"
    rate: ClassVar[float] = 1e-2

    rank: Annotated[int, Choice(64, 128, 256)] = 128
    top: Annotated[float, Choice(0.25, 0.5, 1.0)] = 1.0

    def apply(self, model: nn.Module) -> None:
        """Freeze the model, and put the gains into it. Raises BadInput where it has no such layers."""
        model.requires_grad_(False)
        drawn = cache(_Random)

        def gains(layer: nn.Linear) -> nn.Module:
            return _Gains(layer, drawn(self.rank, layer.in_features), drawn(layer.out_features, self.rank))

        for name in linears_of(model, "attention", self.top):
            wrap(model, name, gains)


class _Random(nn.Module):
    """A random matrix. It is a module, and no tensor, so that those who share it still do on another device."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.matrix_NM: Tensor
        self.register_buffer("matrix_NM", _drawn(rows, columns), persistent=False)


class _Gains(nn.Module):
    def __init__(self, base_layer: nn.Linear, down: _Random, up: _Random) -> None:
        super().__init__()
        self.base_layer, self.down, self.up = base_layer, down, up
        self.inner_R = nn.Parameter(torch.full((len(down.matrix_NM),), 0.1))
        self.outer_O = nn.Parameter(torch.zeros(base_layer.out_features))

    @property
    def weight(self) -> Tensor:
        """The layer's own, whose dtype some models ask for."""
        return self.base_layer.weight

    def forward(self, x_BLI: Tensor) -> Tensor:
        inner_BLR = nn.functional.linear(x_BLI, self.down.matrix_NM) * self.inner_R
        added_BLO: Tensor = nn.functional.linear(inner_BLR, self.up.matrix_NM) * self.outer_O
        out_BLO: Tensor = self.base_layer(x_BLI)
        return out_BLO + added_BLO

    def merged_layer(self) -> nn.Linear:
        """The layer with what was learned worked into it."""
        up_OR, down_RI = self.up.matrix_NM, self.down.matrix_NM
        with torch.no_grad():
            self.base_layer.weight += self.outer_O[:, None] * (up_OR * self.inner_R) @ down_RI
        return self.base_layer


def _drawn(rows: int, columns: int) -> Tensor:
    """Random numbers of one seed, of the size that keeps a signal as large as it is (arXiv:1502.01852)."""
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, columns, generator=generator) / math.sqrt(columns)
