"""The host of a core: projects to queries, keys and values, applies modifiers, and projects back.

Shapes: B batch, L length, D dim, H heads, G key-value heads, S source length, K dim of one head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn

from deepmine_auto.contracts import Attention, AttentionCore, AttentionMixer, AttentionModifier, AttentionShape, Mixed
from deepmine_auto.model import flex
from deepmine_auto.model.dense import DenseAttention, biased, changed, hook_of, repeated
from deepmine_auto.model.guard import (
    DENSE_HOOKS,
    Refused,
    check_call,
    check_decoding,
    check_hooks,
    check_set,
    check_shape,
)
from deepmine_auto.model.mask import Mask
from deepmine_auto.model.softmax import FusedSoftmax

KeysValues = tuple[()] | tuple[Tensor, Tensor]
"""What decoding goes on from: nothing, or keys (B, G, S, K), as they were projected, and values (B, G, S, K)."""


class Past(NamedTuple):
    """How much of each token of the source was seen: by the step before, and by all steps before in sum."""

    last_BHS: Tensor
    sum_BHS: Tensor

    def then(self, weights_BH1S: Tensor) -> Past:
        """The past of the step that follows one of these weights."""
        last_BHS = weights_BH1S[:, :, -1]
        return Past(last_BHS, self.sum_BHS + last_BHS)


class MultiHead(nn.Module):
    """A core with its modifiers, as a token mixer of a block. Keys and values come from what the layer reads, or, in
    cross mode, from `source_BSD`."""

    def __init__(self, core: AttentionCore, modifiers: Sequence[AttentionModifier], shape: AttentionShape) -> None:
        super().__init__()
        self.variants = (core, *modifiers)
        self.shape = shape = core.adapt(shape)
        check_set(core, modifiers)
        for each in self.variants:
            check_shape(each, shape)
        kv_dim = shape.kv_heads * shape.head_dim
        self.split = (shape.dim, kv_dim, kv_dim)
        self.to_qkv = nn.Linear(shape.dim, sum(self.split), bias=False)
        self.to_out = nn.Linear(shape.dim, shape.dim)
        self.core = core.build(shape)
        self.modifiers = nn.ModuleList(each.build(shape) for each in modifiers)
        for modifier, module in zip(modifiers, self.modifiers, strict=True):
            check_hooks(modifier, module)
        self.dense = any(map(self._hooks, DENSE_HOOKS))
        others = any(map(self._hooks, DENSE_HOOKS[1:]))
        self.score_by_score = self.dense and not others and type(self.core) is FusedSoftmax
        self.looking_back = [each.name for each in modifiers if each.needs == "past"]
        if core.caps.matrix and not isinstance(self.core, DenseAttention):
            raise Refused(f"'{core.name}' declares a weight matrix, and is no DenseAttention.", "Declare none.")

    def forward(
        self,
        x_BLD: Tensor,
        mask: Mask,
        state: KeysValues | None = None,
        *,
        weights: bool = False,
        source_BSD: Tensor | None = None,
        past: Past | None = None,
    ) -> tuple[Mixed, KeysValues | None]:
        """Mix tokens. With a state, `x_BLD` holds the new tokens alone, and keys and values of all are returned. With a
        past, it holds one step, and weights are returned. Raises Refused where a modifier needs a past, and has none.
        """
        for variant in self.variants:
            check_call(variant, mask, x_BLD)
        q_BHLK, k_BGSK, v_BGSK = self._projected(x_BLD, source_BSD)
        if past is not None:
            weights = True
            k_BGSK, v_BGSK = self._reminded(k_BGSK, v_BGSK, past)
        elif self.looking_back:
            what = f"'{self.looking_back[0]}' looks at what earlier steps saw, and here all steps are taken at once."
            raise Refused(what, "Use a backbone that goes step by step: lstm.")
        if state is not None:
            check_decoding(self.variants)
            k_BGSK, v_BGSK = _joined(state, k_BGSK, v_BGSK)
        mixed = self.mix(q_BHLK, k_BGSK, v_BGSK, mask, weights)
        out_BHLK = mixed.out
        for hook in self._hooks("on_out"):
            out_BHLK = hook(out_BHLK, x_BLD)
        out_BLD = self.to_out(out_BHLK.transpose(1, 2).flatten(2))
        losses = {**mixed.losses, **self.losses()}
        return mixed._replace(out=out_BLD, losses=losses), None if state is None else (k_BGSK, v_BGSK)

    def _projected(self, x_BLD: Tensor, source_BSD: Tensor | None) -> list[Tensor]:
        if source_BSD is None:
            parts = self.to_qkv(x_BLD).split(self.split, -1)
        else:
            weights = self.to_qkv.weight.split((self.split[0], sum(self.split[1:])))
            parts = (nn.functional.linear(x_BLD, weights[0]),
                     *nn.functional.linear(source_BSD, weights[1]).split(self.split[1:], -1))  # fmt: skip
        return [each.unflatten(-1, (-1, self.shape.head_dim)).transpose(1, 2) for each in parts]

    def _reminded(self, k_BGSK: Tensor, v_BGSK: Tensor, past: Past) -> tuple[Tensor, Tensor]:
        # query heads that share a key looked at different places, so each of them has a past of its own
        k_BHSK, v_BHSK = (repeated(each, self.shape.heads) for each in (k_BGSK, v_BGSK))
        for hook in self._hooks("on_past"):
            k_BHSK = hook(k_BHSK, *past)
        return k_BHSK, v_BHSK

    def nothing_seen(self, source_BSD: Tensor) -> Past:
        """What the first step begins with."""
        seen_BHS = source_BSD.new_zeros(len(source_BSD), self.shape.heads, source_BSD.shape[1])
        return Past(seen_BHS, seen_BHS)

    def alignment_losses(self, weights_BHLS: Tensor, keep_BL: Tensor) -> dict[str, Tensor]:
        """What modifiers say of the weights of all steps, those of padding apart."""
        found: dict[str, Tensor] = {}
        for hook in self._hooks("alignment_losses"):
            found |= hook(weights_BHLS, keep_BL)
        return found

    def mix(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, weights: bool) -> Mixed:
        """Mix values (B, G, S, K) by the core with its modifiers, without `on_out`: (B, H, L, K)."""
        for hook in self._hooks("on_qk"):
            q_BHLK, k_BGSK = hook(q_BHLK, k_BGSK, mask)
        mask = biased(mask, q_BHLK, k_BGSK, self.modifiers)
        if self.dense:
            assert isinstance(self.core, DenseAttention)
            if self.score_by_score and not weights and flex.serves(q_BHLK, v_BGSK, mask):
                return Mixed(self._score_by_score(q_BHLK, k_BGSK, v_BGSK, mask))
            return self.core.mix(q_BHLK, k_BGSK, v_BGSK, mask, self.modifiers)
        mixed: Mixed = self.core(q_BHLK, k_BGSK, v_BGSK, mask, weights=weights)
        return mixed

    def _score_by_score(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask) -> Tensor:
        blocks = flex.bands(q_BHLK.shape[2], k_BGSK.shape[2], mask.causal, mask.window, q_BHLK.device)

        def change(score: Tensor) -> Tensor:
            return changed(score, "on_score", self.modifiers)

        return flex.flex_softmax(q_BHLK, k_BGSK, v_BGSK, blocks, mask.padding, change)

    def losses(self) -> dict[str, Tensor]:
        """What the modifiers add to the loss, by name, of the last forward pass."""
        found: dict[str, Tensor] = {}
        for hook in self._hooks("losses"):
            found |= hook()
        return found

    def _hooks(self, name: str) -> list[Callable[..., Any]]:
        """What the modifiers that have it do at a point of the road."""
        found = [hook_of(each, name) for each in self.modifiers]
        return [each for each in found if each is not None]


def looks_back(mixing: nn.Module) -> TypeGuard[MultiHead]:
    """Whether a token mixing must be called step by step, with the past of each step."""
    return isinstance(mixing, MultiHead) and bool(mixing.looking_back)


def _joined(state: KeysValues, k_BGSK: Tensor, v_BGSK: Tensor) -> tuple[Tensor, Tensor]:
    return (torch.cat((state[0], k_BGSK), 2), torch.cat((state[1], v_BGSK), 2)) if state else (k_BGSK, v_BGSK)


class Mixer(nn.Module):
    """A mixer with the host's checks around it."""

    def __init__(self, mixer: AttentionMixer, shape: AttentionShape) -> None:
        super().__init__()
        self.variant = mixer
        shape = mixer.adapt(shape)
        check_shape(mixer, shape)
        self.mixer = mixer.build(shape)

    def forward(
        self, x_BLD: Tensor, mask: Mask, state: object = None, *, weights: bool = False
    ) -> tuple[Mixed, object]:
        """Mix tokens, and return the state that decoding goes on from."""
        check_call(self.variant, mask, x_BLD)
        if state is not None:
            check_decoding([self.variant])
        mixed, state = self.mixer(x_BLD, mask, state, weights=weights)
        return mixed, state


def token_mixer(variant: Attention, modifiers: Sequence[AttentionModifier], shape: AttentionShape) -> MultiHead | Mixer:
    """Build the token mixing of one layer from a core with modifiers, or from a mixer. Raises Refused."""
    check_set(variant, modifiers)
    if isinstance(variant, AttentionMixer):
        return Mixer(variant, shape)
    if not isinstance(variant, AttentionCore):
        raise Refused(f"'{variant.name}' is a modifier and mixes nothing by itself.", "Name a core or a mixer too.")
    return MultiHead(variant, modifiers, shape)
