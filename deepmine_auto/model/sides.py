"""One row of tokens as source and target: what stands before the separator, and what begins with it.

A task that answers with a sequence puts both into one row, so that every host can read it: a decoder reads on, an
encoder-decoder takes it apart.

Shapes: B batch, L length, S source length, T target length, D dim.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from deepmine_auto.errors import BadInput


class Sides(NamedTuple):
    """Tokens and what to keep of both sides, and where each target token stands in the row, (B, T)."""

    source_BS: Tensor
    keep_BS: Tensor
    target_BT: Tensor
    keep_BT: Tensor
    at_BT: Tensor

    def back(self, out_BTD: Tensor, length: int) -> Tensor:
        """Put what the target tokens became where they stood, (B, L, D); the source's places are zero."""
        kept_BTD = out_BTD * self.keep_BT[..., None]
        empty_BLD = out_BTD.new_zeros(len(out_BTD), length, out_BTD.shape[-1])
        return empty_BLD.scatter_add(1, self.at_BT[..., None].expand_as(kept_BTD), kept_BTD)


def sides(tokens_BL: Tensor, keep_BL: Tensor, separator: int) -> Sides:
    """Take rows apart. Raises BadInput where a row has no separator or nothing before it."""
    found_BL = (tokens_BL == separator) & keep_BL
    first_B1 = found_BL.int().argmax(1, keepdim=True)
    if not bool((found_BL.any(1) & (first_B1[:, 0] > 0)).all()):
        raise BadInput("A row has no source before its separator.", "Write source, separator, target so far.")
    at_L = torch.arange(tokens_BL.shape[1], device=tokens_BL.device)
    source = at_L[None, : int(first_B1.max())] < first_B1
    ends_B1 = keep_BL.sum(1, keepdim=True)
    at_BT = first_B1 + at_L[None, : int((ends_B1 - first_B1).max())]
    keep_BT, at_BT = at_BT < ends_B1, at_BT.clamp_max(tokens_BL.shape[1] - 1)
    return Sides(tokens_BL[:, : source.shape[1]], source, tokens_BL.gather(1, at_BT), keep_BT, at_BT)
