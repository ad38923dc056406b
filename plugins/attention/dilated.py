"""Dilated window attention: every other head looks at each d-th token alone, and so d times as far for the same price.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head, D dilation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmine_auto import (
    AttentionCore,
    AttentionShape,
    BadInput,
    Caps,
    Choice,
    Cost,
    FusedSoftmax,
    Int,
    Mask,
    Mixed,
    WindowSoftmax,
)


@dataclass(frozen=True, kw_only=True)
class Dilated(AttentionCore):
    """Softmax over `window` tokens to each side; in every second head these stand `dilation` apart. The heads between
    are plain windows, without which tokens of different remainders would never hear of each other."""

    name: ClassVar[str] = "dilated"
    source: ClassVar[str] = "arXiv:2004.05150"
    caps: ClassVar[Caps] = Caps(
        modes=frozenset({"bidirectional", "causal"}),
        masks=frozenset({"padding", "causal", "window"}),
        weights="exact",
        matrix=True,
        fit="finetune",
        decoding="kv",
        normalized=True,
        scaling=1.0,
        dtypes=frozenset({"float64", "float32", "bfloat16", "float16"}),
    )

    window: Annotated[int, Int(16, 512, log=True)] = 64
    dilation: Annotated[int, Choice(2, 4)] = 2

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the module; it learns nothing. Raises BadInput where heads have no pairs."""
        if shape.heads % 2:
            raise BadInput(f"'{self.name}' pairs heads, and a layer has {shape.heads}.", "Choose an even number.")
        return _Dilated(self.window, self.dilation)

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Dense softmax over the keys that a block reads."""
        module = WindowSoftmax(self.window)
        seen = min(length, module.width)
        copies = 2.0 * seen / module.block
        return Cost(flops=4.0 * length * seen * shape.dim, peak_bytes=4.0 * length * (2 * seen + copies * shape.dim))


class _Dilated(FusedSoftmax):
    def __init__(self, window: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.plain = WindowSoftmax(window)

    def weigh(self, q_BHLK: Tensor, k_BGSK: Tensor, mask: Mask, modifiers: Iterable[nn.Module] = ()) -> Tensor:
        length, source = q_BHLK.shape[2], k_BGSK.shape[2]
        i_L1 = torch.arange(source - length, source, device=q_BHLK.device)[:, None]
        ahead_LS = torch.arange(source, device=q_BHLK.device) - i_L1
        near_LS = ahead_LS.abs() <= self.plain.window
        far_LS = (ahead_LS.abs() <= self.plain.window * self.dilation) & (ahead_LS % self.dilation == 0)
        seen_HLS = torch.stack((near_LS, far_LS)).repeat(q_BHLK.shape[1] // 2, 1, 1)
        return super().weigh(q_BHLK, k_BGSK, replace(mask, dense=seen_HLS), modifiers)

    def forward(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, *, weights: bool = False) -> Mixed:
        if weights:  # `weigh` narrows
            return super().forward(q_BHLK, k_BGSK, v_BGSK, mask, weights=True)
        head_H = torch.arange(q_BHLK.shape[1], device=q_BHLK.device) // (q_BHLK.shape[1] // k_BGSK.shape[1])
        k_BHSK, v_BHSK = (x.index_select(1, head_H) for x in (k_BGSK, v_BGSK))
        near = self.plain(q_BHLK[:, ::2], k_BHSK[:, ::2], v_BHSK[:, ::2], mask).out
        far = self._far(q_BHLK[:, 1::2], k_BHSK[:, 1::2], v_BHSK[:, 1::2], mask)
        return Mixed(torch.stack((near, far), 2).flatten(1, 2))

    def _far(self, q_BHLK: Tensor, k_BHSK: Tensor, v_BHSK: Tensor, mask: Mask) -> Tensor:
        """A dilated window is a plain one among the tokens of one remainder, which stand in for rows of the batch."""
        (rows, _, length, _), source = q_BHLK.shape, k_BHSK.shape[2]
        real_BS = k_BHSK.new_ones((1, source), dtype=torch.bool) if mask.padding is None else mask.padding
        real_BS = self._apart(real_BS.expand(rows, -1)[:, None, :, None])[:, 0, :, 0]
        window = None if mask.window is None else (mask.window[0] // self.dilation, mask.window[1] // self.dilation)
        part = Mask(padding=real_BS, causal=mask.causal, window=window)
        out = self.plain(self._apart(q_BHLK), self._apart(k_BHSK), self._apart(v_BHSK), part).out
        out_BHLK: Tensor = out.unflatten(0, (rows, self.dilation)).permute(0, 2, 3, 1, 4).flatten(2, 3)
        return out_BHLK[:, :, out_BHLK.shape[2] - length :]

    def _apart(self, x_BHLK: Tensor) -> Tensor:
        """Each remainder as a row, (B D, H, L / D, K). Zeros go in front, so the last query still stands at the last
        key."""
        x_BHLDK: Tensor = F.pad(x_BHLK, (0, 0, -x_BHLK.shape[2] % self.dilation, 0)).unflatten(2, (-1, self.dilation))
        return x_BHLDK.permute(0, 3, 1, 2, 4).flatten(0, 1)
