"""The search space that is left of a file's for these rows, in these models, on this device."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from deepmine_auto.admission import admitted, strangers
from deepmine_auto.contracts import Attention, AttentionModifier, Backbone, MaskFeature, Mode, Prepared, Task
from deepmine_auto.errors import BadInput
from deepmine_auto.host import Host
from deepmine_auto.planning import paying
from deepmine_auto.planning.conformance import fault
from deepmine_auto.pretrained.skeleton import Skeleton, misfits, skeletons_of, tunable
from deepmine_auto.space import Space
from deepmine_auto.space_file.building import Admit, build_space
from deepmine_auto.space_file.reading import SpaceFile


class Searched(NamedTuple):
    """A space, and the file that it is made of; the tokens of each input, in order; the pretrained models that it
    names; and why variants, tunings and techniques were left out."""

    file: SpaceFile
    space: Space
    lengths: Sequence[int]
    models: Sequence[Skeleton]
    left_out: tuple[str, ...]


def space_over(
    file: SpaceFile,
    task: type[Task],
    prepared: Prepared,
    inputs: Sequence[Any],
    host: Host,
    *,
    unchecked: bool,
    here: bool,
) -> Searched:
    """Build the space that can be searched on inputs that trials see. `unchecked` variants are not held to their
    promises; where trials do not run `here`, speed and memory of this machine say nothing of them. Raises BadInput."""
    lengths, left_out = sorted(map(len, prepared.encode(inputs))), list[str]()
    models = skeletons_of(file, prepared.max_len, host)
    file = tunable(file, models, left_out, host)
    admit = admitting(lengths, prepared.max_len, left_out, faults(host, unchecked), models, here=here)
    return Searched(file, build_space(file, host, task, admit), lengths, models, tuple(dict.fromkeys(left_out)))


def faults(host: Host, unchecked: bool) -> Callable[[str], str]:
    """What says which promise an attention variant breaks; nobody asks where plugins are trusted."""
    return lambda name: "" if unchecked else fault(host.brought("attention", name))


def admitting(
    lengths: Sequence[int],
    most: int,
    left_out: list[str],
    fault: Callable[[str], str],
    models: Collection[Skeleton] = (),
    *,
    here: bool = True,
) -> Admit:
    """What picks the variants that can be searched on rows of these lengths, of which `most` tokens are read at most,
    and in these pretrained models; it adds why others cannot. `fault` says which promise a variant breaks."""
    median, longest = lengths[len(lengths) // 2], lengths[-1]

    def admit(
        variants: Mapping[str, type[Attention]], backbones: Collection[type[Backbone]]
    ) -> dict[str, type[Attention]]:
        modes = frozenset[Mode]().union(*(each.modes for each in backbones))
        causal: frozenset[MaskFeature] = frozenset({"causal"}) if "causal" in modes else frozenset()
        padding: frozenset[MaskFeature] = frozenset({"padding"})
        able, reasons = admitted(variants, modes, padding | causal, most)
        reasons += strangers(able, backbones)
        reasons += [f"{name} breaks a promise: {why}" for name in able if (why := fault(name))]
        reasons += misfits(models, _without(able, reasons))
        if here:  # what breaks a promise is not even asked what it costs
            reasons += paying.reasons(_without(able, reasons), median, longest)
        able = _without(able, reasons)
        left_out.extend(f"left out: {why}" for why in reasons)
        if all(issubclass(each, AttentionModifier) for each in able.values()):
            why = f": {'; '.join(reasons)}" if reasons else ""
            what = f"No core or mixer is among the attentions {', '.join(variants)}{why}."
            raise BadInput(what, "Add one, such as multi_head.")
        return able

    return admit


def _without(variants: Mapping[str, type[Attention]], reasons: Sequence[str]) -> dict[str, type[Attention]]:
    """The variants of which no reason (`NAME ...`) speaks."""
    return {name: each for name, each in variants.items() if not any(why.startswith(f"{name} ") for why in reasons)}
