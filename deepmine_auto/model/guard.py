"""The host enforces what a variant declares: mode, mask features, length, device, dtype. Nothing is dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from deepmine_auto.admission import contradiction
from deepmine_auto.contracts import Attention, AttentionModifier, AttentionShape, Needs
from deepmine_auto.errors import BadInput
from deepmine_auto.model.dense import hook_of
from deepmine_auto.model.mask import Mask
from deepmine_auto.model.precision import in_mixed_precision

DENSE_HOOKS = ("on_score", "on_scores", "on_weights")
PAST_HOOKS = ("on_past", "alignment_losses")
NEEDED_BY: Mapping[str, Needs] = {
    "bias": "bias",
    **dict.fromkeys(DENSE_HOOKS, "matrix"),
    **dict.fromkeys(PAST_HOOKS, "past"),
}
"""What a hook of a modifier needs of a core, which without that would never call it."""


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
    if x.device.type not in (*variant.caps.devices, "meta"):  # there nothing is computed
        raise Refused(f"'{variant.name}' does not declare the device '{x.device.type}'.", "Choose another variant.")
    dtype = str(x.dtype).removeprefix("torch.")
    # what is declared is what its weights can be; in mixed precision they are float32, whatever a layer before it wrote
    if dtype not in variant.caps.dtypes and not in_mixed_precision(x):
        raise Refused(f"'{variant.name}' does not declare the dtype '{dtype}'.", "Choose another variant.")


def check_decoding(variants: Iterable[Attention]) -> None:
    """Refuse to decode step by step with a variant that does not declare it. Raises Refused."""
    for each in variants:
        if each.caps.decoding == "none":
            raise Refused(f"'{each.name}' cannot decode token by token.", "Choose another variant.")


def check_set(core: Attention, modifiers: Iterable[AttentionModifier]) -> None:
    """Refuse an illegal set. Raises Refused."""
    for each in modifiers:
        if why := contradiction(type(core), type(each)):
            raise Refused(f"{why}.", "Leave one of them out.")


def check_hooks(modifier: AttentionModifier, module: nn.Module) -> None:
    """Refuse a module with a hook whose need its plugin does not declare: some cores would drop it. Raises Refused."""
    needed = {hook: need for hook, need in NEEDED_BY.items() if hook_of(module, hook)}
    undeclared = [hook for hook, need in needed.items() if need != modifier.needs]
    if not undeclared:
        return
    remedy = f'Declare needs = "{needed[undeclared[0]]}".'
    if len({*needed.values()}) > 1:
        remedy = "Make one plugin for each need."
    what = f"'{modifier.name}' has the hook '{undeclared[0]}', and declares that it needs {modifier.needs}."
    raise Refused(what, remedy)
