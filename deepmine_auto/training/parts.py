"""A batch that is not to be in memory as a whole, worked off in parts.

Shapes: B batch, L length.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from deepmine_auto.contracts import Mixed


class InParts(nn.Module):
    """A model that returns the outputs of a whole batch, and keeps the activations of one of its parts at a time: those
    of the others are computed again when their gradient is due.

    So loss and techniques see the whole batch, whatever the number of parts. A loss need not be a mean over rows: class
    weights, masked means and losses that compare rows are what they would be without parts. What is paid is a second
    forward pass; what stays is the memory of the outputs themselves.
    """

    def __init__(self, model: nn.Module, parts: int) -> None:
        super().__init__()
        self.model, self.parts = model, parts

    def forward(self, tokens_BL: Tensor, keep_BL: Tensor) -> Mixed:
        """Return the outputs (B, ...) and the extra losses, which are means over rows."""
        if self.parts == 1:
            whole: Mixed = self.model(tokens_BL, keep_BL)
            return whole
        split = zip(tokens_BL.tensor_split(self.parts), keep_BL.tensor_split(self.parts), strict=True)
        mixed = [checkpoint(self.model, *each, use_reentrant=False) for each in split if len(each[0])]
        shares = [len(each.out) / len(tokens_BL) for each in mixed]
        losses = total(scaled(each.losses, share) for each, share in zip(mixed, shares, strict=True))
        return Mixed(torch.cat([each.out for each in mixed]), losses=losses)


def scaled(losses: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Means over some rows as what they add to the mean over the batch, of which those rows are a `share`."""
    return {name: share * each for name, each in losses.items()}


def total(parts: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The sums of losses by name."""
    sums: dict[str, Tensor] = {}
    for losses in parts:
        for name, each in losses.items():
            sums[name] = sums[name] + each if name in sums else each
    return sums
