"""What a tuning adds to a model that others trained, whose weights stay: beside the attention of each layer, or before
the words.

Shapes: B batch, L length, P vectors before the words, E dim of word vectors, D dim.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from deepmine_auto.errors import BadInput
from deepmine_auto.model.guard import Refused
from deepmine_auto.model.mask import Mask
from deepmine_auto.model.softmax import fused_softmax
from deepmine_auto.pretrained.parts import alike, asked, top_blocks
from deepmine_auto.pretrained.positions import Positions
from deepmine_auto.pretrained.surgery import Call, Insert, Transplant, calls_of, put_in, was_operated

# -- beside attention --------------------------------------------------------------------------------------------------


class Beside(Insert):
    """A layer's softmax attention with what a tuning adds to it."""

    stays = True

    def __init__(self, mixing: nn.Module, causal: bool) -> None:
        super().__init__(causal)
        self.mixing = mixing

    def mix(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask) -> Tensor:
        """Mix as the tuning says."""
        out_BHLK: Tensor = self.mixing(q_BHLK, k_BGSK, v_BGSK, mask)
        return out_BHLK


class _Softmax(nn.Module):
    """What stands in layers to which nothing is added."""

    def forward(self, q_BHLK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask) -> Tensor:
        return fused_softmax(q_BHLK, k_BGSK, v_BGSK, mask)


def beside_attention(model: nn.Module, build: Callable[[int, int, int], nn.Module], top: float = 1.0) -> None:
    """Let what `build(heads, kv_heads, head_dim)` makes compute the attention of each layer of the highest share `top`
    of the blocks, at least one, between projections that stay. Its module: `forward(q (B, H, L, K), k and v
    (B, G, S, K), mask: Mask) -> (B, H, L, K)`; `fused_softmax` is what the layer computed before. Raises BadInput where
    a model computes its attention by itself, and Refused where variants stand in it or its layers ask for more than we
    honour."""
    own = _original(model)
    if was_operated(own):
        what = "This tuning adds to softmax attention, and variants stand in the place of the pretrained model's."
        raise Refused(what, "Choose multi_head, or another tuning.")
    calls = _softmax_calls(own)
    inside = {id(each) for block in top_blocks(model, top) for each in block.modules()}
    mixings = [build(*each[1:4]) if id(each.layer) in inside else _Softmax() for each in calls]
    put_in(own, calls, [Beside(mixing, call.causal) for mixing, call in zip(mixings, calls, strict=True)])


def _softmax_calls(own: Any) -> list[Call]:
    try:
        calls = calls_of(own)
    except Refused as refused:
        raise Refused(refused.what, "Choose another tuning.") from refused
    if not calls:
        what = f"{type(own).__name__} computes its attention by itself, so nothing can be added to it."
        raise BadInput(what, "Choose another tuning.")
    return calls


def _original(model: nn.Module) -> Any:
    """The model of transformers in a backbone, or what is one itself."""
    from transformers import PreTrainedModel

    return next(each for each in model.modules() if isinstance(each, PreTrainedModel))


# -- before the words --------------------------------------------------------------------------------------------------


class Before(nn.Module):
    """Puts vectors before the words that a model reads, and cuts off again what it says of them.

    They are never padding. Words keep the positions that they had; all vectors stand at the position of the first word,
    so that a model with a table of positions reads as long texts as before.
    """

    stays = True

    def __init__(self, own: Any, vectors: nn.Module) -> None:
        super().__init__()
        self.vectors = vectors
        self.positions = Positions(own)
        self.hidden, self.length = False, 0

    def put(self, own: Any, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Change what the model reads."""
        table, ids_BL, mask_BL = own.get_input_embeddings(), given["input_ids"], given["attention_mask"]
        vectors_PE: Tensor = self.vectors(table)
        self.length = len(vectors_PE)
        vectors_BPE = vectors_PE.expand(len(ids_BL), -1, -1)
        seen_BP = mask_BL.new_full(vectors_BPE.shape[:2], 0 if self.hidden else 1)
        changed = {
            "input_ids": None,
            "inputs_embeds": torch.cat((vectors_BPE, table(ids_BL)), 1),
            "attention_mask": torch.cat((seen_BP, mask_BL), 1),
        }
        if self.positions.told:
            at_BL = self.positions.of(ids_BL)
            changed["position_ids"] = torch.cat((at_BL[:, :1].expand(-1, self.length), at_BL), 1)
        return args, {**given, **changed}

    def cut(self, _own: Any, _args: Any, out: Any) -> None:
        """Change what the model says."""
        out.last_hidden_state = out.last_hidden_state[:, self.length :]


def before_words(model: nn.Module, build: Callable[[nn.Embedding], nn.Module]) -> None:
    """Put vectors before all words that a model reads. `build(table)` makes a module whose `forward(table)` returns
    them, (P, E); `table` knows the vectors of words (V, E). Raises BadInput where a model takes no vectors, and Refused
    where it would say something else of words even if nobody looked at what is before them, as it does where words
    would get other positions, or where variants count from the beginning or have no room."""
    own = _original(model)
    if "inputs_embeds" not in inspect.signature(own.forward).parameters:
        raise BadInput(f"{type(own).__name__} reads nothing but tokens.", "Choose another tuning.")
    untouched_ND = _said(own)
    before = Before(own, build(own.get_input_embeddings()))
    own.add_module("before", before)
    own.register_forward_pre_hook(before.put, with_kwargs=True)
    own.register_forward_hook(before.cut)
    before.hidden = True
    if not alike(_said(own), untouched_ND):
        what = "Vectors before the words change what a model says even where nobody looks at them."
        raise Refused(what, "Choose multi_head, or another tuning.")
    before.hidden = False


def _said(own: Any) -> Tensor:
    """What a model says of a text, and of one that is shorter by a word: as long as any where variants have a limit.
    Nothing of one whose weights are on no device."""
    if next(own.parameters()).is_meta:
        return torch.zeros(0, device="cpu")
    limits = [each.mixing.shape.max_len for each in own.modules() if isinstance(each, Transplant)]
    device = next(own.parameters()).device
    words, padding = own.get_input_embeddings().num_embeddings, own.config.pad_token_id or 0
    ids_BL = torch.arange(max(limits, default=8), device=device).remainder(words).repeat(2, 1)
    ids_BL = ids_BL.where(ids_BL != padding, words - 1)
    keep_BL = torch.ones_like(ids_BL)
    ids_BL[1, -1], keep_BL[1, -1] = padding, 0
    try:
        with asked(own):
            out_BLD: Tensor = own(input_ids=ids_BL, attention_mask=keep_BL).last_hidden_state
    except BadInput as error:
        raise Refused(f"Vectors before the words do not fit: {error.what}", "Choose another tuning.") from error
    return torch.cat((out_BLD[0], out_BLD[1, :-1]))
