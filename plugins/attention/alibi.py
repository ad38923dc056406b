"""ALiBi: a penalty that grows with distance, by a slope of each head's own, in place of position embeddings.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head, O offsets of a key from a
query, N heads with a slope.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmine_auto import AttentionModifier, AttentionShape, Caps, Choice, Cost, by_offset, offsets


@dataclass(frozen=True, kw_only=True)
class Alibi(AttentionModifier):
    """Take slope |i - j| off the scores. Slopes are not learned: they fall geometrically from 2 ^ (-8 / N) to 1 / 256.
    With `heads` half, the other heads see no distance. The last query stands at the last key."""

    name: ClassVar[str] = "alibi"
    source: ClassVar[str] = "arXiv:2108.12409"
    needs = "bias"
    caps: ClassVar[Caps] = Caps.everywhere(
        modes=frozenset({"bidirectional", "causal"}),
        weights="exact",
        fit="finetune",
        decoding="kv",
        normalized=True,
        dtypes=frozenset({"float64", "float32", "bfloat16", "float16"}),
        onnx=True,
    )

    heads: Annotated[str, Choice("half", "all")] = "all"

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the module; it learns nothing."""
        sloped = shape.heads if self.heads == "all" else max(1, shape.heads // 2)
        return _Slopes(shape.heads, sloped)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """One number for each score, to keep and to add."""
        pairs = float(length**2 * shape.heads)
        return Cost(flops=pairs, peak_bytes=4.0 * pairs)


class _Slopes(nn.Module):
    def __init__(self, heads: int, sloped: int) -> None:
        super().__init__()
        self.heads = heads
        self.sloped = sloped

    def bias(self, q_BHLK: Tensor, k_BGSK: Tensor) -> Tensor:
        length, source = q_BHLK.shape[2], k_BGSK.shape[2]
        exact = torch.promote_types(q_BHLK.dtype, torch.float32)
        ahead_O = offsets(length, source, q_BHLK.device, exact)
        steps_N = torch.arange(1, self.sloped + 1, device=q_BHLK.device, dtype=exact)
        slopes_H = F.pad(torch.exp2(steps_N * (-8.0 / self.sloped)), (0, self.heads - self.sloped))
        bias_HO = (-slopes_H[:, None] * ahead_O.abs()).to(q_BHLK.dtype)
        return by_offset(bias_HO, length, source)[None]
