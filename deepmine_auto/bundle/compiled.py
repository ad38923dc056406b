"""A model compiled by torch: slower to load, faster to answer many rows.

Shapes: B batch, L length, C outputs of a row.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from deepmine_auto.bundle.probe import probe, same
from deepmine_auto.contracts import Mixed
from deepmine_auto.errors import BadInput
from deepmine_auto.model.assemble import Model


class Compiled(nn.Module):
    """The forward pass of a model as one program for all lengths and numbers of rows.

    torch makes another program where a size is 1, so one row is worked off as two, and one token as a padded one.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.program = torch.compile(model, dynamic=True)

    def forward(self, tokens_BL: Tensor, keep_BL: Tensor) -> Mixed:
        """Return the outputs (B, C) or (B, L, C) as `out`, and nothing else."""
        rows, length = tokens_BL.shape
        if rows == 1:
            tokens_BL, keep_BL = tokens_BL.repeat(2, 1), keep_BL.repeat(2, 1)
        if length == 1:
            tokens_BL, keep_BL = pad(tokens_BL, (0, 1)), pad(keep_BL, (0, 1))
        out = self.program(tokens_BL, keep_BL).out[:rows]
        return Mixed(out[:, :length] if out.ndim == 3 else out)


def compiled(model: Model, place: Path, vocabulary: int, separator: int | None = None) -> Compiled:
    """Compile the model of the bundle in `place`, which a first batch does. Raises BadInput where that cannot be, or
    where the outputs are others afterwards."""
    made, expected = Compiled(model), probe(model, vocabulary, separator)
    try:
        found = probe(made, vocabulary, separator)
    except Exception as error:  # torch says it in many ways, some of them private
        first = str(error).strip().partition("\n")[0]
        remedy = "Install a C++ compiler such as g++, or leave compile out." if "C++" in first else "Leave compile out."
        raise BadInput(f"The model in {place} cannot be compiled here ({first}).", remedy) from error
    if not same(found, expected):
        raise BadInput(f"The model in {place} computes something else when it is compiled.", "Leave compile out.")
    return made
