"""Which attention variants can be searched: what the data rule out, and which of them change one another.

Everything here is decided from what classes declare; nothing is built.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from deepmine_auto.contracts import (
    Attention,
    AttentionCore,
    AttentionMixer,
    AttentionModifier,
    Backbone,
    MaskFeature,
    Mode,
    Task,
    Technique,
)


def contradiction(core: type[Attention], modifier: type[AttentionModifier]) -> str:
    """Say why a modifier cannot change a variant, or return an empty string."""
    if not issubclass(core, AttentionCore):
        return f"'{modifier.name}' changes a core, and '{core.name}' is none"
    if modifier.needs == "bias" and "bias" not in core.caps.masks:
        return f"'{modifier.name}' adds to the scores, and '{core.name}' takes no bias"
    if modifier.needs == "matrix" and not core.caps.matrix:
        return f"'{core.name}' has no weight matrix for '{modifier.name}' to change"
    if modifier.rescales and not core.scaled:
        return f"'{modifier.name}' takes the place of a division by sqrt(K), and '{core.name}' has none"
    if modifier.needs == "past" and core.caps.weights != "exact":
        return f"'{modifier.name}' reads the weights of earlier steps, and '{core.name}' does not show them"
    return ""


def unsuited(backbone: type[Backbone], task: type[Task]) -> str:
    """Say why a backbone cannot learn a task, or return an empty string."""
    if backbone.pairs and not task.pairs:
        return f"'{backbone.name}' takes apart source and target, and rows of '{task.name}' are one text"
    sees_all = backbone.pretrained or "bidirectional" in backbone.modes  # of what others trained some do
    if task.mode == "causal" and sees_all and not backbone.pairs:
        return f"'{backbone.name}' would see the answers of '{task.name}', which stand in its rows"
    return ""


def unusable(technique: type[Technique], task: type[Task]) -> str:
    """Say why a technique cannot change the training of a task, or return an empty string."""
    if technique.one_answer and task.each_token:
        return f"'{technique.name}' is for rows of one answer, and in '{task.name}' each token has its own"
    return ""


def wordless(technique: type[Technique], backbones: Collection[type[Backbone]]) -> str:
    """Say why a technique cannot change the training of one of these backbones, or return an empty string."""
    if technique.needs_vectors and any(each.pretrained for each in backbones):
        return f"'{technique.name}' needs vectors of words, and a pretrained model reads pieces of them"
    return ""


def natural(backbones: Mapping[str, type[Backbone]], task: type[Task]) -> list[str]:
    """The backbones that a task is searched with where none is named: those that look as it allows, and no more, and
    that learn from nothing."""
    fitting = {name: each for name, each in backbones.items() if each.modes == {task.mode} and not each.pretrained}
    return sorted(name for name, each in fitting.items() if not unsuited(each, task))


def inadmissible(variant: type[Attention], modes: frozenset[Mode], masks: frozenset[MaskFeature], length: int) -> str:
    """Say why the data and the backbones rule a variant out of a search, or return an empty string."""
    caps = variant.caps
    if modes - caps.modes:
        return f"{variant.name} has no {min(modes - caps.modes)} mode"
    if masks - caps.masks:
        return f"{variant.name} cannot mask {min(masks - caps.masks)}"
    if caps.max_len is not None and length > caps.max_len:
        return f"{variant.name} takes at most {caps.max_len} tokens, and up to {length} are read of an input"
    return ""


def admitted(
    variants: Mapping[str, type[Attention]], modes: frozenset[Mode], masks: frozenset[MaskFeature], length: int
) -> tuple[dict[str, type[Attention]], list[str]]:
    """Split variants into those that the data admit, and a sentence for each of the others."""
    reasons = {name: inadmissible(each, modes, masks, length) for name, each in variants.items()}
    return {name: variants[name] for name, why in reasons.items() if not why}, [why for why in reasons.values() if why]


def strangers(variants: Mapping[str, type[Attention]], backbones: Collection[type[Backbone]]) -> list[str]:
    """A sentence for each variant that cannot stand between the projections of a pretrained model."""
    if not any(each.pretrained for each in backbones):
        return []
    mixers = (name for name, each in variants.items() if issubclass(each, AttentionMixer))
    return [f"{name} has projections of its own, and so has a pretrained model" for name in mixers]
