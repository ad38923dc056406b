"""Location-aware attention: keys know where earlier steps looked, so that the next step can move on from there.

Shapes: B batch, H heads, S source length, K dim of one head, F filters, W width of a filter,
X filters of all heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmine_auto import AttentionModifier, AttentionShape, Caps, Choice, Cost


@dataclass(frozen=True, kw_only=True)
class Location(AttentionModifier):
    """Add U f to each key, where f is what learned filters find in the weights of the step before, or in the sum of
    those of all steps, around the key's place. Additive attention then scores v tanh(W q + V k + U f), as the paper
    does; other cores compare U f with the query. U begins at zero, as no location. Works only where a model goes step
    by step."""

    name: ClassVar[str] = "location"
    source: ClassVar[str] = "arXiv:1506.07503"
    needs = "past"
    caps: ClassVar[Caps] = Caps(
        modes=frozenset({"cross"}), masks=frozenset({"padding"}), weights="exact", normalized=True
    )

    seen: Annotated[str, Choice("last", "sum")] = "last"
    filters: Annotated[int, Choice(4, 8, 16)] = 8
    width: Annotated[int, Choice(3, 7, 15, 31)] = 7

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make filters, and what turns their findings into a part of a key, for each head."""
        return _Location(shape, self)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """For each step and place the filters, and keys of its own, which are kept for the backward pass."""
        pairs = float(length**2 * shape.heads)
        flops = 2.0 * pairs * self.filters * (self.width + shape.head_dim)
        return Cost(flops=flops, peak_bytes=4.0 * pairs * (self.filters + shape.head_dim))


class _Location(nn.Module):
    def __init__(self, shape: AttentionShape, chosen: Location) -> None:
        super().__init__()
        self.seen = chosen.seen
        self.filters_HFW = nn.Parameter(torch.randn(shape.heads, chosen.filters, chosen.width) * chosen.width**-0.5)
        self.u_HFK = nn.Parameter(torch.zeros(shape.heads, chosen.filters, shape.head_dim))

    def on_past(self, k_BHSK: Tensor, last_BHS: Tensor, sum_BHS: Tensor) -> Tensor:
        seen_BHS = last_BHS if self.seen == "last" else sum_BHS
        heads, filters, width = self.filters_HFW.shape
        each_X1W = self.filters_HFW.flatten(0, 1)[:, None]
        found_BXS = F.conv1d(seen_BHS, each_X1W, padding=width // 2, groups=heads)
        found_BHFS: Tensor = found_BXS.unflatten(1, (heads, filters))
        return k_BHSK + found_BHFS.mT @ self.u_HFK
