"""Dense attention: scores of every query with every key, normalised, times the values.

What softmax, entmax and additive attention share. A variant overrides `score` or `normalize`; modifiers that need the
scores or the weights work through the same road.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from deepmine_auto.contracts import Mixed
from deepmine_auto.model.mask import Mask


def repeated(x_BGSK: Tensor, heads: int) -> Tensor:
    """Repeat key-value heads so that there are as many as query heads: (B, G, S, K) to (B, H, S, K)."""
    groups = x_BGSK.shape[1]
    return x_BGSK if groups == heads else x_BGSK.repeat_interleave(heads // groups, dim=1)


def hook_of(modifier: nn.Module, name: str) -> Callable[..., Any] | None:
    """What a modifier does at a point of the road, or None; what it learns may have the name of a hook too."""
    found: Any = getattr(modifier, name, None)
    return found if callable(found) else None


def changed(x: Tensor, name: str, modifiers: Iterable[nn.Module]) -> Tensor:
    """Pass a tensor through the hook of every modifier that has it."""
    for each in modifiers:
        hook = hook_of(each, name)
        x = x if hook is None else hook(x)
    return x


def biased(mask: Mask, q_BHLK: Tensor, k_BGSK: Tensor, modifiers: Iterable[nn.Module]) -> Mask:
    """The mask with what modifiers add to the scores."""
    for each in modifiers:
        hook = hook_of(each, "bias")
        if hook is not None:
            bias = hook(q_BHLK, k_BGSK)
            mask = replace(mask, bias=bias if mask.bias is None else mask.bias + bias)
    return mask


class DenseAttention(nn.Module):
    """Softmax attention by its definition. Rows that may look at nothing return zero."""

    def score(self, q_BHLK: Tensor, k_BHSK: Tensor) -> Tensor:
        """Return scores (B, H, L, S); here the scaled dot product."""
        scores_BHLS: Tensor = (q_BHLK * q_BHLK.shape[-1] ** -0.5) @ k_BHSK.transpose(-1, -2)
        return scores_BHLS

    def normalize(self, scores_BHLS: Tensor) -> Tensor:
        """Turn scores, with -inf where hidden, into weights whose rows sum to one; here by softmax."""
        return scores_BHLS.softmax(-1)

    def normalize_some(self, scores_BHLS: Tensor, keep: Tensor) -> Tensor:
        """Do so where `keep`, broadcastable to (B, H, L, S), hides some of them; rows that see nothing become zero."""
        # a row of -inf alone has no normaliser: such a row is scored as if all were visible, and then set to zero
        lost = ~keep.any(-1, keepdim=True)
        masked_BHLS = scores_BHLS.masked_fill(~(keep | lost), -torch.inf)
        return self.normalize(masked_BHLS).masked_fill(lost, 0.0)

    def weigh(self, q_BHLK: Tensor, k_BGSK: Tensor, mask: Mask, modifiers: Iterable[nn.Module] = ()) -> Tensor:
        """Return the weights (B, H, L, S), after `on_score`, `on_scores` and `on_weights` of the modifiers."""
        scores_BHLS = self.score(q_BHLK, repeated(k_BGSK, q_BHLK.shape[1]))
        scores_BHLS = changed(changed(scores_BHLS, "on_score", modifiers), "on_scores", modifiers)
        if mask.bias is not None:
            # what a bias of -inf hides is hidden below; added here, it would make the gradient of an empty row nan
            scores_BHLS = scores_BHLS + mask.bias.masked_fill(mask.bias == -torch.inf, 0.0)
        keep = mask.allowed(q_BHLK.shape[2], k_BGSK.shape[2], q_BHLK.device)
        weights_BHLS = self.normalize(scores_BHLS) if keep is None else self.normalize_some(scores_BHLS, keep)
        return changed(weights_BHLS, "on_weights", modifiers)

    def mix(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, modifiers: Iterable[nn.Module]) -> Mixed:
        """Weigh and mix, keeping the weights."""
        weights_BHLS = self.weigh(q_BHLK, k_BGSK, mask, modifiers)
        return Mixed(weights_BHLS @ repeated(v_BGSK, q_BHLK.shape[1]), weights_BHLS)

    def forward(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, *, weights: bool = False) -> Mixed:
        """Mix values; weights (B, H, L, S) come with them when asked for."""
        mixed = self.mix(q_BHLK, k_BGSK, v_BGSK, mask, ())
        return mixed if weights else mixed._replace(weights=None)
