"""Talking heads: heads mix their scores before the softmax, and their weights after it.

Shapes: B batch, H heads, L length, S source length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import AttentionModifier, AttentionShape, Caps, Choice, Cost


@dataclass(frozen=True, kw_only=True)
class TalkingHeads(AttentionModifier):
    """Mix heads linearly where `mixed` says: scores (pre), weights (post) or both. It begins with the identity, which
    is softmax. Once weights are mixed, rows no longer sum to one and may hold negative numbers. Masks that may differ
    from head to head are refused, because a head would see through another what is hidden from itself. Needs the
    weights, so that the fused kernel is lost."""

    name: ClassVar[str] = "talking_heads"
    source: ClassVar[str] = "arXiv:2003.02436"
    needs = "matrix"
    caps: ClassVar[Caps] = Caps.everywhere(
        masks=frozenset({"padding", "causal", "window"}),
        weights="exact",
        fit="exact",
        decoding="kv",
        position_free=True,
        dtypes=frozenset({"float64", "float32", "bfloat16", "float16"}),
        onnx=True,
    )
    neutral: ClassVar[Mapping[str, Any] | None] = {}

    mixed: Annotated[str, Choice("pre", "post", "both")] = "both"

    def build(self, shape: AttentionShape) -> nn.Module:
        """Make a square of the heads for each mixture."""
        return _Talk(shape.heads, pre=self.mixed != "post", post=self.mixed != "pre")

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Each score of each head goes into that of every head, once or twice."""
        pairs, mixtures = float(length**2 * shape.heads), 2.0 if self.mixed == "both" else 1.0
        return Cost(flops=2.0 * mixtures * pairs * shape.heads, peak_bytes=(8.0 + 4.0 * mixtures) * pairs)


class _Talk(nn.Module):
    def __init__(self, heads: int, *, pre: bool, post: bool) -> None:
        super().__init__()
        # what is learned is the difference from the identity, so that weight decay leads back to softmax
        self.pre_HH = nn.Parameter(torch.zeros(heads, heads)) if pre else None
        self.post_HH = nn.Parameter(torch.zeros(heads, heads)) if post else None

    def on_scores(self, scores_BHLS: Tensor) -> Tensor:
        return _talked(scores_BHLS, self.pre_HH)

    def on_weights(self, weights_BHLS: Tensor) -> Tensor:
        return _talked(weights_BHLS, self.post_HH)


def _talked(x_BHLS: Tensor, more_HH: Tensor | None) -> Tensor:
    if more_HH is None:
        return x_BHLS
    mixture_HH = torch.eye(len(more_HH), dtype=more_HH.dtype, device=more_HH.device) + more_HH
    mixed_BHLS: Tensor = (mixture_HH @ x_BHLS.flatten(2)).unflatten(2, x_BHLS.shape[2:])
    return mixed_BHLS
