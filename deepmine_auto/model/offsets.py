"""What depends on the distance of a key from a query alone, for every pair of them.

Shapes: H heads, L length, S source length, O = L + S - 1 offsets.
"""

from __future__ import annotations

import torch
from torch import Tensor


def offsets(length: int, source: int, device: torch.device, dtype: torch.dtype = torch.long) -> Tensor:
    """How far ahead of a query a key can stand, from 1 - S to L - 1, (O,)."""
    return torch.arange(1 - source, length, device=device, dtype=dtype)


def by_offset(x_HO: Tensor, length: int, source: int) -> Tensor:
    """Give each pair of query and key the number of its offset, (H, L, S); the last query stands at the last key."""
    if torch.compiler.is_exporting():  # an exported program cannot unfold to a size that changes
        first_L1 = torch.arange(length - 1, -1, -1, device=x_HO.device)[:, None]
        return x_HO[:, first_L1 + torch.arange(source, device=x_HO.device)]
    # a query's row is a slice of the offsets, which begins one earlier than the row before it
    return x_HO.unfold(-1, source, 1).flip(-2)
