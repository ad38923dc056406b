"""Who may look at whom, kept as structure: O(L) memory until somebody asks for the dense matrix.

Shapes: B batch, H heads, L length (queries), S source length (keys).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from deepmine_auto.contracts import MaskFeature


@dataclass(frozen=True, eq=False)
class Mask:
    """A structured mask; `features` names the parts in use, and a variant must have declared each of them.

    padding: keys to keep (B, S), True = keep. causal: a query sees no later key; the last query is aligned with the
    last key. window: (left, right) keys seen to each side, the own one included in neither. bias: added to the scores,
    broadcastable to (B, H, L, S), -inf hides. dense: bool, broadcastable to (B, H, L, S), True = keep.
    """

    padding: Tensor | None = None
    causal: bool = False
    window: tuple[int, int] | None = None
    bias: Tensor | None = None
    dense: Tensor | None = None

    @property
    def features(self) -> frozenset[MaskFeature]:
        """The parts in use."""
        parts = ((each.name, getattr(self, each.name)) for each in fields(self))
        return frozenset(name for name, part in parts if part is not None and part is not False)  # type: ignore[misc]

    def allowed(self, length: int, source: int, device: torch.device | None = None) -> Tensor | None:
        """The dense bool mask, broadcastable to (B, H, L, S), True = keep; None where everything is allowed."""
        parts = [*self._bands(length, source, device)]
        if self.padding is not None:
            parts.append(self.padding[:, None, None, :])
        if self.bias is not None:
            parts.append(self.bias > -torch.inf)
        if self.dense is not None:
            parts.append(self.dense)
        keep = None
        for part in parts:
            keep = part if keep is None else keep & part
        return keep

    def _bands(self, length: int, source: int, device: torch.device | None) -> list[Tensor]:
        if not self.causal and self.window is None:
            return []
        query_L1 = torch.arange(source - length, source, device=device)[:, None]
        ahead_LS = torch.arange(source, device=device)[None, :] - query_L1
        bands = [ahead_LS <= 0] if self.causal else []
        if self.window is not None:
            left, right = self.window
            bands.append((ahead_LS >= -left) & (ahead_LS <= right))
        return bands


NOTHING_HIDDEN = Mask()
