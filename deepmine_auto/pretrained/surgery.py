"""Attention variants inside a model of transformers, in the place of its own attention.

transformers looks up by name what computes attention and what makes its masks. Ours stands there once for all models;
what differs from layer to layer is a module of the layer. The name is not kept in config.json, so a bundle of ours
builds it again from params.

Shapes: B batch, H heads, G key-value heads, L length, S source length, K dim of one head.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from deepmine_auto.contracts import Attention, AttentionModifier, AttentionShape
from deepmine_auto.errors import BadInput
from deepmine_auto.model.dense import hook_of
from deepmine_auto.model.guard import Refused, check_call
from deepmine_auto.model.mask import Mask
from deepmine_auto.model.multi_head import Mixer, MultiHead, token_mixer
from deepmine_auto.pretrained.parts import PUT_IN, asked, blocks_with_gradients
from deepmine_auto.training.parts import total

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NAME = PUT_IN
"""What transformers calls it too; a name with `flash`, `sdpa` or `flex` in it would ask for its own kernels."""

IGNORED = ("output_attentions", "use_cache", "cache_position", "position_ids", "past_key_values", "return_dict",
           "position_embeddings")  # fmt: skip
"""What layers pass on that changes nothing of the mixing: rotations are applied, and no cache is kept."""

REPLACEABLE = ("bert", "distilbert", "llama", "roberta")
"""Architectures whose attention can be replaced, as a test shows of each. They are not all: T5 is another, but takes
only variants that take a bias, and ViT one that reads no text."""

Attend = Callable[[AttentionShape], nn.Module]


def attend(core: Attention, modifiers: Sequence[AttentionModifier]) -> Attend:
    """What makes the token mixing of a layer of a core with modifiers."""
    return lambda shape: token_mixer(core, modifiers, shape)


class Call(NamedTuple):
    """A layer that asked for attention, and how: heads, key-value heads, dim of one head, whether it is causal."""

    layer: nn.Module
    heads: int
    kv_heads: int
    head_dim: int
    causal: bool


class Insert(nn.Module):
    """What computes attention between the projections of a layer that others trained."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal, self.asked = causal, False

    def forward(
        self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, keep_BS: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        """Return (B, L, H, K), as transformers wants it."""
        self.asked = True  # no count of calls: a compiler would make another program for each number
        out_BHLK = self.mix(q_BHLK, k_BGSK, v_BGSK, Mask(padding=keep_BS, causal=self.causal, bias=bias))
        assert out_BHLK.shape == q_BHLK.shape  # transformers would take any other order of dimensions too
        return out_BHLK.transpose(1, 2).contiguous()

    def mix(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask) -> Tensor:
        """Return (B, H, L, K)."""
        raise NotImplementedError


class Transplant(Insert):
    """A core with its modifiers; `before` is the name of the attention that it took the place of."""

    def __init__(self, mixing: MultiHead, causal: bool, before: str) -> None:
        super().__init__(causal)
        del mixing.to_qkv, mixing.to_out
        self.mixing, self.before = mixing, before
        self.losses: dict[str, Tensor] = {}

    def mix(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask) -> Tensor:
        """Mix by the variant, and keep what it adds to the loss. Raises Refused for a mask that it does not declare."""
        for variant in self.mixing.variants:
            check_call(variant, mask, q_BHLK)
        mixed = self.mixing.mix(q_BHLK, k_BGSK, v_BGSK, mask, weights=False)
        self.losses = {**mixed.losses, **self.mixing.losses()}
        return mixed.out


def operate(model: Any, attend: Attend, max_len: int) -> bool:
    """Put attention variants into every layer of a model; return whether there was anything to change.

    Softmax as the layer computes it is left to the layer. Raises BadInput where the model does not ask for attention by
    name, and Refused for variants that cannot stand between the projections of others.
    """
    before = model.config._attn_implementation
    try:
        calls = _some_calls(model)
    except BadInput:
        if _asks_for_nothing(attend, model.config, max_len):
            return False
        raise
    layers = [_mixing(attend, call, layer, max_len) for layer, call in enumerate(calls)]
    if all(map(_is_softmax, layers)):
        return False
    put_in(model, calls, [Transplant(each, call.causal, before) for each, call in zip(layers, calls, strict=True)])
    return True


def _some_calls(model: Any) -> list[Call]:
    calls = calls_of(model)
    if not calls:
        named = ", ".join(REPLACEABLE)
        what = f"{type(model).__name__} computes its attention by itself, so no variant can take its place"
        remedy = "Search it with --attention multi_head alone, or choose such a model."
        raise BadInput(f"{what} as it can in {named}.", remedy)
    return calls


def _asks_for_nothing(attend: Attend, config: Any, max_len: int) -> bool:
    """Whether softmax as it is is asked for in all layers; the number of heads does not matter."""
    shape = AttentionShape(dim=config.hidden_size, heads=1, kv_heads=1, max_len=max_len)
    return all(_is_softmax(attend(replace(shape, layer=each))) for each in range(config.num_hidden_layers))


def put_in(model: Any, calls: Sequence[Call], inserts: Sequence[Insert]) -> None:
    """Let each layer that asked for attention be answered by its insert. Raises Refused where one asked twice."""
    if len({id(each.layer) for each in calls}) < len(calls):
        what = f"Layers of {type(model).__name__} share one attention, and each would need its own."
        raise Refused(what, "Choose multi_head, or another tuning.")
    for call, insert in zip(calls, inserts, strict=True):
        call.layer.add_module(NAME, insert)
    model.set_attn_implementation(NAME)
    _try_out(model)
    assert all(each.asked for each in inserts), "every layer that asked before asks again"


def was_operated(model: nn.Module) -> bool:
    """Whether variants stand in a model."""
    return any(isinstance(each, Transplant) for each in model.modules())


def restored(model: Any) -> None:
    """Take the variants out of a model again, so that it computes its attention as it did before."""
    layers = [each for each in model.modules() if NAME in dict(each.named_children())]
    before = layers[0].get_submodule(NAME).before
    for each in layers:
        delattr(each, NAME)
    model.set_attn_implementation(before)


@contextmanager
def variants_learning(model: nn.Module) -> Iterator[None]:
    """Let variants go on learning although a tuning freezes the model around them meanwhile; but for those below all
    that it lets learn, where it wants no gradient."""
    variants = [each for each in model.modules() if isinstance(each, Transplant)]
    learning = [each for variant in variants for each in variant.parameters() if each.requires_grad]
    yield
    blocks = blocks_with_gradients(model) if learning else []
    reached = {id(each) for block in blocks for each in block.parameters()}
    for each in learning:
        each.requires_grad_(id(each) in reached)


def losses_of(model: nn.Module) -> dict[str, Tensor]:
    """What variants of all layers and a tuning add to the loss, by name, of the last forward pass."""
    variants = (each.losses for each in model.modules() if isinstance(each, Transplant))
    # asked of the class: a module that lacks an attribute takes its time to say so
    tuned: Any = (each for each in model.modules() if hasattr(type(each), "extra_losses"))
    return total([*variants, *(each.extra_losses() for each in tuned)])


def _mixing(attend: Attend, call: Call, layer: int, max_len: int) -> MultiHead:
    shape = AttentionShape(
        dim=call.heads * call.head_dim,
        heads=call.heads,
        kv_heads=call.kv_heads,
        layer=layer,
        max_len=max_len,
        mode="causal" if call.causal else "bidirectional",
    )
    mixing = attend(shape)
    if isinstance(mixing, Mixer):
        what = f"'{mixing.variant.name}' has projections of its own, and a pretrained layer has too."
        raise Refused(what, "Choose a core.")
    assert isinstance(mixing, MultiHead)
    if mixing.shape != shape:
        raise Refused(
            f"'{mixing.variants[0].name}' wants other heads than the pretrained layer has.", "Choose another."
        )
    seeing = [each for each in mixing.modifiers if hook_of(each, "on_out")]
    if seeing:
        raise Refused("A modifier wants to see what a layer reads, which is not known here.", "Leave it out.")
    return mixing


def _is_softmax(mixing: nn.Module) -> bool:
    """Whether it computes what the layer itself does."""
    if not isinstance(mixing, MultiHead):
        return False
    core, *modifiers = mixing.variants
    return not modifiers and core.neutral == {} == core.params()


# -- what transformers calls -------------------------------------------------------------------------------------------


def attention(
    layer: nn.Module, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, keep_BS: Tensor | None,
    dropout: float = 0.0, scaling: float | None = None, **told: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Compute attention for a layer by what was put into it. Raises Refused for what we do not honour."""
    del dropout  # a pretrained stack has switched it off
    bias = told.pop("position_bias", None)
    asked = told.pop("is_causal", None)
    causal = bool(getattr(layer, "is_causal", False) if asked is None else asked)
    unknown = [name for name, each in told.items() if each is not None and name not in IGNORED]
    if unknown:
        raise Refused(f"The pretrained model asks for '{unknown[0]}', which no variant knows.", "Choose multi_head.")
    if v_BGSK.shape[-1] != q_BHLK.shape[-1]:
        what = "The values of the pretrained model are of another length than its queries."
        raise Refused(what, "Choose multi_head.")
    own = q_BHLK.shape[-1] ** -0.5
    q_BHLK = q_BHLK if scaling is None or scaling == own else q_BHLK * (scaling / own)
    if _probe.calls is not None:
        return _probe(layer, q_BHLK, k_BGSK, v_BGSK, keep_BS, bias, causal), None
    return layer.get_submodule(NAME)(q_BHLK, k_BGSK, v_BGSK, keep_BS, bias), None


def padding(
    batch_size: int,
    q_length: int,
    kv_length: int,
    mask_function: Any = None,
    attention_mask: Tensor | None = None,
    **told: Any,
) -> Tensor | None:
    """The keys to keep (B, S), or None; who may look at whom beside that is the layer's `is_causal`. Raises Refused
    for any other mask."""
    from transformers.masking_utils import bidirectional_mask_function, causal_mask_function

    del batch_size, q_length, told
    if mask_function not in (None, causal_mask_function, bidirectional_mask_function):
        raise Refused("The pretrained model hides more than padding and the future.", "Choose multi_head.")
    return None if attention_mask is None else attention_mask[:, -kv_length:].bool()


class _Probe:
    """Notes which layers ask for attention, and answers them with softmax."""

    calls: list[Call] | None = None

    def __call__(
        self, layer: nn.Module, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, keep_BS: Tensor | None,
        bias: Tensor | None, causal: bool,
    ) -> Tensor:  # fmt: skip
        assert self.calls is not None
        heads, kv_heads = q_BHLK.shape[1], k_BGSK.shape[1]
        self.calls.append(Call(layer, heads, kv_heads, q_BHLK.shape[-1], causal))
        return q_BHLK.transpose(1, 2).contiguous()  # any answer of this shape will do


_probe = _Probe()


@contextmanager
def _probing() -> Iterator[list[Call]]:
    calls: list[Call] = []
    _probe.calls = calls
    try:
        yield calls
    finally:
        _probe.calls = None


def calls_of(model: Any) -> list[Call]:
    """The layers that ask for attention by name, in order; none where a model computes it by itself. Raises Refused
    where they ask for what we do not honour."""
    _register()
    before = model.config._attn_implementation
    with _probing() as calls:
        model.set_attn_implementation(NAME)
        try:
            _try_out(model)
        finally:
            model.set_attn_implementation(before)
    return calls


def _try_out(model: Any) -> None:
    with asked(model):
        model(**_least_input(model))


def _least_input(model: Any) -> dict[str, Tensor]:
    """Two tokens, or a black picture for a model that looks at pictures."""
    device = next(model.parameters()).device
    if model.main_input_name == "pixel_values":
        size = model.config.image_size
        height_width = (size, size) if isinstance(size, int) else tuple(size)
        return {"pixel_values": torch.zeros((1, model.config.num_channels, *height_width), device=device)}
    ids_BL = torch.ones((1, 2), dtype=torch.long, device=device)
    return {"input_ids": ids_BL, "attention_mask": torch.ones_like(ids_BL)}


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, padding)
