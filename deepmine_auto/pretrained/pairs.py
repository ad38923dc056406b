"""Tunings and attention variants that exclude each other in a pretrained model, found out before a study is written.

Whether one goes with the other may show in numbers alone, and a skeleton has none. So each pair is tried on a small
model that has some, and that looks at words as those of the search do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import torch

from deepmine_auto.admission import contradiction
from deepmine_auto.contracts import AttentionCore, AttentionModifier
from deepmine_auto.errors import BadInput
from deepmine_auto.host import Host
from deepmine_auto.pretrained.choosing import SOFTMAX
from deepmine_auto.pretrained.suiting import fixed_by, left_of, refusal_of, tunings_of
from deepmine_auto.pretrained.surgery import Attend, attend, operate
from deepmine_auto.space import plugin_from
from deepmine_auto.space_file.reading import SpaceFile

if TYPE_CHECKING:
    from deepmine_auto.pretrained.skeleton import Skeleton

SPREAD = 0.14
"""How large the weights of a small model are: its queries and keys are then as large as those of an untrained BERT."""

MOST_TOKENS = 256
"""A small model reads no more, so that trying a pair takes milliseconds."""

Why = Callable[[str, str], BadInput | None]


def matched(file: SpaceFile, models: Sequence[Skeleton], left_out: list[str], host: Host) -> SpaceFile:
    """The file without tunings that go with none of its attention variants, and without variants that go with none of
    its tunings; adds why. Raises BadInput where no tuning is left."""
    pairs = _Pairs(file, models, host)
    lone = _lone(pairs.tunings, pairs.cores, pairs.why)
    left = [name for name in pairs.tunings if name not in lone]
    told = _told(lone, f"attentions {', '.join(pairs.cores)}")
    if not left:
        raise BadInput(told[0], next(iter(lone.values())).remedy)
    strange = _lone(pairs.cores, left, lambda core, tuning: pairs.why(tuning, core))
    told += _told(strange, f"tunings {', '.join(left)}")
    left_out.extend(f"left out: {each}" for each in told)
    attention = [each for each in pairs.attention if each not in strange]
    return replace(file, plugins={**file.plugins, "tuning": left, "attention": attention})


def _lone(names: Iterable[str], others: Collection[str], why: Why) -> dict[str, BadInput]:
    """Which of these names go with none of the others, and why not with the first of them."""
    found = {}
    for name in names:
        reasons = [each for each in takewhile(bool, (why(name, other) for other in others)) if each]
        if others and len(reasons) == len(others):
            found[name] = reasons[0]
    return found


def _told(lone: dict[str, BadInput], others: str) -> list[str]:
    return [f"{name} goes with none of the {others}, as they are by default: {why.what}" for name, why in lone.items()]


class _Pairs:
    """The tunings and attention variants that a file searches in models, and what they say to each other."""

    def __init__(self, file: SpaceFile, models: Sequence[Skeleton], host: Host) -> None:
        self.models, fixed = models, fixed_by(file)
        self.attention = file.plugins.get("attention") or sorted(host.offered("attention"))
        classes, tunings = {name: host.get("attention", name) for name in self.attention}, tunings_of(file, host)
        self.tunings = {name: plugin_from(each, fixed, f"tuning/{name}") for name, each in tunings.items()}
        variants = {name: plugin_from(each, fixed, f"attention/{name}") for name, each in classes.items()}
        cores = {name: each for name, each in variants.items() if isinstance(each, AttentionCore)}
        always = [each for name, each in variants.items() if _is_always_on(file, name, each)]
        asked = left_of([*cores], file.ranges.get("attention/kind"))
        self.mixings = {name: _mixing(cores[name], always) for name in asked}
        self.asked: dict[tuple[str, str], BadInput | None] = {}

    @cached_property
    def kinds(self) -> set[_Kind]:
        """What kinds of models there are."""
        return {_Kind(each.causal, min(each.max_len, MOST_TOKENS)) for each in self.models}

    @cached_property
    def cores(self) -> list[str]:
        """The cores that can stand in such models at all."""
        return [name for name, each in self.mixings.items() if not each or not any(self._refused(each))]

    def why(self, tuning: str, core: str) -> BadInput | None:
        """Why one does not go with the other, or None."""
        mixing, pair = self.mixings[core], (tuning, core)
        if mixing and pair not in self.asked:
            apply = self.tunings[tuning].apply
            alone = any(each.refusal(apply) for each in self.kinds)  # whatever stands in the place of its attention
            self.asked[pair] = None if alone else next(filter(None, self._refused(mixing, apply)), None)
        return self.asked.get(pair)

    def _refused(self, mixing: Attend, *changes: Callable[[Any], object]) -> list[BadInput | None]:
        return [each.refusal(partial(operate, attend=mixing, max_len=each.max_len), *changes) for each in self.kinds]


def _is_always_on(file: SpaceFile, name: str, variant: object) -> TypeGuard[AttentionModifier]:
    return isinstance(variant, AttentionModifier) and file.ranges.get(f"attention/{name}/use") in (True, [True])


def _mixing(core: AttentionCore, modifiers: Sequence[AttentionModifier]) -> Attend | None:
    """What a core with modifiers makes of a layer; None where that is left to the model."""
    if core.name == SOFTMAX and not modifiers:
        return None
    return attend(core, [each for each in modifiers if not contradiction(type(core), type(each))])


class _Kind(NamedTuple):
    """A kind of models: whether no token sees a later one, and how many they read at most."""

    causal: bool
    max_len: int

    def refusal(self, *changes: Callable[[Any], object]) -> BadInput | None:
        """Why a small model of this kind cannot be changed so, or None."""

        def work() -> None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                small = self._small()
                for change in changes:
                    change(small)

        return refusal_of(work)

    def _small(self) -> Any:
        from transformers import BertConfig, BertModel

        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        looks = {"is_decoder": self.causal, "use_cache": False, "max_position_embeddings": self.max_len}
        return BertModel(BertConfig(vocab_size=32, initializer_range=SPREAD, **looks, **sizes)).eval()
