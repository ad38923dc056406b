"""The forgetting transformer: softmax attention in which every token turns down all that came before it.

Shapes: B batch, L length, D dim, H heads, G key-value heads, S source length, K dim of one head, J = K + 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmine_auto import (
    AttentionMixer,
    AttentionShape,
    Caps,
    Cost,
    Float,
    FusedSoftmax,
    Mask,
    Mixed,
    full_precision,
)

State = tuple[()] | tuple[Tensor, Tensor]
"""Nothing, or keys (B, G, S, J), the last dim of which holds the gates, and values (B, G, S, J)."""


@dataclass(frozen=True, kw_only=True)
class Forgetting(AttentionMixer):
    """Causal softmax of q k plus the sum of log gates after the key, up to the query. A gate is a sigmoid of the token,
    one a key-value head; `start` is its first bias, and the larger it is, the longer a new model remembers. At gates of
    one it is softmax attention. Keeps the fused kernel, which in mixed precision stays in float32."""

    name: ClassVar[str] = "forgetting"
    source: ClassVar[str] = "arXiv:2503.02130"
    caps: ClassVar[Caps] = Caps(
        modes=frozenset({"causal"}),
        masks=frozenset({"padding", "causal", "window"}),  # a token that others hide would still turn them down
        weights="exact",
        decoding="state",
        normalized=True,
        onnx=True,
    )

    start: Annotated[float, Float(0.0, 6.0)] = 3.0

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make projections and gates."""
        return _Forgetting(shape, self.start)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Dense softmax attention, and the four projections that other variants leave to the host."""
        pairs = super().cost(shape, length)
        return pairs._replace(flops=pairs.flops + 8.0 * length * shape.dim**2)


class _Forgetting(nn.Module):
    def __init__(self, shape: AttentionShape, start: float) -> None:
        super().__init__()
        self.head_dim = shape.head_dim
        kv_dim = shape.kv_heads * shape.head_dim
        self.split = (shape.dim, kv_dim, kv_dim)
        self.to_qkv = nn.Linear(shape.dim, sum(self.split), bias=False)
        self.to_gate = nn.Linear(shape.dim, shape.kv_heads)
        nn.init.constant_(self.to_gate.bias, start)
        self.to_out = nn.Linear(shape.dim, shape.dim)
        self.softmax = FusedSoftmax()

    def forward(
        self, x_BLD: Tensor, mask: Mask, state: State | None = None, *, weights: bool = False
    ) -> tuple[Mixed, State | None]:
        exact = torch.promote_types(x_BLD.dtype, torch.float32)  # half floats would round sums of many gates
        parts = (self.to_gate(x_BLD), *self.to_qkv(x_BLD).split(self.split, -1))
        gate_BLG, *qkv = (each.to(exact) for each in parts)
        q, k, v = (x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for x in qkv)
        k_BGSJ, v_BGSJ = torch.cat((k, -self._sums(gate_BLG, mask, state)[..., None]), -1), F.pad(v, (0, 1))
        if state:
            k_BGSJ, v_BGSJ = torch.cat((state[0], k_BGSJ), 2), torch.cat((state[1], v_BGSJ), 2)
        with full_precision(x_BLD):
            mixed: Mixed = self.softmax(self._asking(q), k_BGSJ, v_BGSJ, mask, weights=weights)
        out_BLD = self.to_out(mixed.out[..., :-1].transpose(1, 2).flatten(2))
        return mixed._replace(out=out_BLD), None if state is None else (k_BGSJ, v_BGSJ)

    def _sums(self, gate_BLG: Tensor, mask: Mask, state: State | None) -> Tensor:
        """The log gates (B, G, L), summed from the first token on. Between key and query lies the difference of two
        sums; the query's own is the same for all its keys, and softmax does not see it. So the key's sum is all that
        is needed, and it fits into one more dim of the product."""
        gate_BGL = F.logsigmoid(gate_BLG).transpose(1, 2)
        if mask.padding is not None:  # a padded token forgets nothing
            gate_BGL = gate_BGL * mask.padding[:, None, -gate_BGL.shape[-1] :]
        sums_BGL = gate_BGL.cumsum(-1)
        return sums_BGL - state[0][:, :, -1:, -1] if state else sums_BGL

    def _asking(self, q_BHLK: Tensor) -> Tensor:
        """Queries with one more dim, scaled so that the kernel's division by the root of J is that by the root of K,
        and none for the gates."""
        root = math.sqrt(self.head_dim + 1)
        return F.pad(q_BHLK * (root / math.sqrt(self.head_dim)), (0, 1), value=root)
