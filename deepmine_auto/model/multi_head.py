"""The host of a core: projects to queries, keys and values, applies modifiers, and projects back.

Shapes: B batch, L length, D dim, H heads, G key-value heads, S source length, K dim of one head.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from deepmine_auto.contracts import Attention, AttentionCore, AttentionMixer, AttentionModifier, AttentionShape, Mixed
from deepmine_auto.model.dense import DenseAttention, changed
from deepmine_auto.model.guard import Refused, check_call, check_set, check_shape
from deepmine_auto.model.mask import Mask

DENSE_HOOKS = ("on_scores", "on_weights")


def _unchanged(q_BHLK: Tensor, k_BGSK: Tensor) -> tuple[Tensor, Tensor]:
    return q_BHLK, k_BGSK


class MultiHead(nn.Module):
    """A core with its modifiers, as a token mixer of a block."""

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
        self.dense = any(hasattr(each, hook) for each in self.modifiers for hook in DENSE_HOOKS)
        if self.dense and not isinstance(self.core, DenseAttention):
            names = ", ".join(each.name for each in modifiers)
            raise Refused(f"'{core.name}' has no weight matrix for '{names}' to change.", "Leave one of them out.")

    def forward(self, x_BLD: Tensor, mask: Mask, state: None = None, *, weights: bool = False) -> tuple[Mixed, None]:
        """Mix tokens; the state is None, because keys and values are not cached here."""
        for each in self.variants:
            check_call(each, mask, x_BLD)
        q, k, v = self.to_qkv(x_BLD).split(self.split, -1)
        mixed = self._mix(self._heads(q), self._heads(k), self._heads(v), mask, weights)
        out_BHLK = changed(mixed.out, "on_out", self.modifiers)
        return mixed._replace(out=self.to_out(out_BHLK.transpose(1, 2).flatten(2))), None

    def _heads(self, x_BLD: Tensor) -> Tensor:
        heads_BLHK: Tensor = x_BLD.unflatten(-1, (-1, self.shape.head_dim))
        return heads_BLHK.transpose(1, 2)

    def _mix(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, weights: bool) -> Mixed:
        for each in self.modifiers:
            q_BHLK, k_BGSK = getattr(each, "on_qk", _unchanged)(q_BHLK, k_BGSK)
        if self.dense:
            assert isinstance(self.core, DenseAttention)
            return self.core.mix(q_BHLK, k_BGSK, v_BGSK, mask, self.modifiers)
        mixed: Mixed = self.core(q_BHLK, k_BGSK, v_BGSK, mask, weights=weights)
        return mixed


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
