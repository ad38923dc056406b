"""How a model of transformers counts the words of a text.

Shapes: B batch, L length.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn


class Positions:
    """The positions that a model gives to words; `told` where it takes them from whoever asks it."""

    def __init__(self, own: Any) -> None:
        self.told = "position_ids" in inspect.signature(own.forward).parameters
        tables = (each for name, each in own.named_modules() if name.endswith("position_embeddings"))
        table = next((each for each in tables if isinstance(each, nn.Embedding)), None)
        self.padding = None if table is None else table.padding_idx

    def of(self, ids_BL: Tensor) -> Tensor:
        """Return the positions (B, L) of words that stand from the left."""
        if self.padding is None:
            return torch.arange(ids_BL.shape[1], device=ids_BL.device).expand_as(ids_BL)
        words_BL = (ids_BL != self.padding).long()  # a table with a row for padding counts from behind it
        return words_BL.cumsum(1) * words_BL + self.padding
