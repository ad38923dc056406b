"""The host enforces what a variant declares: mode, mask features, length, device, dtype. Nothing is dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from deepmine_auto.contracts import Attention, AttentionCore, AttentionModifier, AttentionShape, MaskFeature, Mode
from deepmine_auto.errors import BadInput
from deepmine_auto.model.mask import Mask


class Refused(BadInput):
    """A variant was asked for something that it does not declare."""


def check_shape(variant: Attention, shape: AttentionShape) -> None:
    """Refuse a shape before anything is built. Raises Refused."""
    if shape.dim % shape.heads:
        raise Refused(f"{shape.heads} heads do not divide dim {shape.dim}.", "Choose heads that divide it.")
    if shape.heads % shape.kv_heads:
        raise Refused(f"{shape.kv_heads} key-value heads do not divide {shape.heads} heads.", "Choose fewer.")
    if shape.mode not in variant.caps.modes:
        declared = ", ".join(sorted(variant.caps.modes)) or "none"
        raise Refused(f"'{variant.name}' cannot be used in {shape.mode} mode.", f"It declares: {declared}.")
    if variant.caps.max_len is not None and shape.max_len > variant.caps.max_len:
        raise Refused(
            f"'{variant.name}' takes at most {variant.caps.max_len} tokens, not {shape.max_len}.", "Cut the input."
        )


def check_call(variant: Attention, mask: Mask, x: Tensor) -> None:
    """Refuse a call that the variant's caps do not cover. Raises Refused."""
    undeclared = mask.features - variant.caps.masks
    if undeclared:
        raise Refused(
            f"'{variant.name}' does not declare the mask feature '{min(undeclared)}'.", "Choose another variant."
        )
    if x.device.type not in variant.caps.devices:
        raise Refused(f"'{variant.name}' does not declare the device '{x.device.type}'.", "Choose another variant.")
    dtype = str(x.dtype).removeprefix("torch.")
    if dtype not in variant.caps.dtypes:
        raise Refused(f"'{variant.name}' does not declare the dtype '{dtype}'.", "Choose another variant.")


def check_set(core: Attention, modifiers: Iterable[AttentionModifier]) -> None:
    """Refuse an illegal set: modifiers need a core, and those of scores or weights need one with a weight matrix."""
    for each in modifiers:
        if not isinstance(core, AttentionCore):
            raise Refused(f"'{each.name}' changes a core, and '{core.name}' is a mixer.", "Leave one of them out.")


def inadmissible(variant: type[Attention], mode: Mode, masks: frozenset[MaskFeature], length: int) -> str:
    """Say why the data rule a variant out of a search, or return an empty string."""
    caps = variant.caps
    if mode not in caps.modes:
        return f"{variant.name} has no {mode} mode"
    if masks - caps.masks:
        return f"{variant.name} cannot mask {min(masks - caps.masks)}"
    if caps.max_len is not None and length > caps.max_len:
        return f"{variant.name} takes at most {caps.max_len} tokens, and the longest input has {length}"
    return ""


def admitted(
    variants: Mapping[str, type[Attention]], mode: Mode, masks: frozenset[MaskFeature], length: int
) -> tuple[dict[str, type[Attention]], list[str]]:
    """Split variants into those that the data admit, and a sentence for each of the others."""
    reasons = {name: inadmissible(each, mode, masks, length) for name, each in variants.items()}
    return {name: variants[name] for name, why in reasons.items() if not why}, [why for why in reasons.values() if why]
