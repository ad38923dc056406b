"""What cannot be done with a model that others trained, found out before a study is written: it is built without
memory, and variants and tunings are tried on it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple, cast

import torch

from deepmine_auto.admission import contradiction
from deepmine_auto.bundle.weights import shapes_of
from deepmine_auto.contracts import Attention, AttentionCore, AttentionModifier, Prepared
from deepmine_auto.errors import BadInput
from deepmine_auto.host import Host
from deepmine_auto.model.meta import lacks_numbers, on_meta
from deepmine_auto.pretrained.choosing import SOFTMAX, named_in
from deepmine_auto.pretrained.files import AGAIN, architecture, folder_of, weights_of
from deepmine_auto.pretrained.pairs import matched
from deepmine_auto.pretrained.stack import PretrainedStack, weights_for
from deepmine_auto.pretrained.suiting import refusal_of, suited, without_wordless
from deepmine_auto.pretrained.surgery import Call, attend, calls_of, operate
from deepmine_auto.space_file.reading import SpaceFile

Change = Callable[[PretrainedStack], object]


class _Reads(NamedTuple):
    """All that a stack asks of what a task prepares."""

    architecture: Mapping[str, Any]
    max_len: int


class Skeleton:
    """A pretrained model as it is, without its weights; `max_len` tokens are what it reads at most. Raises BadInput for
    a model that cannot be built, and for weights that are not all there, or another model's."""

    def __init__(self, name: str, max_len: int, host: Host) -> None:
        self.name, self.max_len = name, max_len
        softmax = attend(host.get("attention", SOFTMAX)(), ())
        reads = cast(Prepared, _Reads(architecture(folder_of(name)), max_len))
        self.making: Callable[[], AbstractContextManager[None]] = on_meta
        try:
            with on_meta():
                self.stack = PretrainedStack(reads, softmax, 0.0)
        except RuntimeError as error:
            if not lacks_numbers(error):
                raise
            self.making = partial(torch.random.fork_rng, devices=[])  # it looks at numbers, and gets some
            with self.making():
                self.stack = PretrainedStack(reads, softmax, 0.0)
        _refuse_other_weights(self.stack, name)

    def refusal(self, change: Change) -> BadInput | None:
        """Why the model cannot be changed so, or None."""
        stack = deepcopy(self.stack)

        def work() -> None:
            with self.making():
                change(stack)

        return refusal_of(work)

    @property
    def causal(self) -> bool:
        """Whether tokens see the past alone; not so where it computes its attention by itself, which is not known."""
        calls: list[Call] = []
        self.refusal(lambda stack: calls.extend(calls_of(stack.model)))
        return any(each.causal for each in calls)


def _refuse_other_weights(stack: PretrainedStack, name: str) -> None:
    """Compare what the headers of its files say with what the model needs; where the names are not plainly the same,
    as in old files, loading tells."""
    folder, found = folder_of(name), dict[str, tuple[int, ...]]()
    for file in weights_of(folder):
        try:
            found |= shapes_of(file)
        except BadInput as error:
            raise BadInput(error.what, AGAIN) from error
    prefix = f"{stack.model.base_model_prefix}."
    needed = {key: tuple(each.shape) for key, each in stack.model.state_dict().items()}
    if any(shape not in (found.get(key), found.get(prefix + key)) for key, shape in needed.items()):
        weights_for(stack.model, stack.own, folder)


# -- what the models of a search refuse --------------------------------------------------------------------------------


def skeletons_of(file: SpaceFile, max_len: int, host: Host) -> list[Skeleton]:
    """The pretrained models that a space file names. Raises BadInput as `Skeleton` does."""
    return [Skeleton(each, max_len, host) for each in named_in(file, host)]


def misfits(models: Collection[Skeleton], variants: Mapping[str, type[Attention]]) -> Iterator[str]:
    """A sentence for each variant that cannot stand in one of these models: `NAME ...`. Raises BadInput where none of
    the cores can."""
    cores = {name: each for name, each in variants.items() if issubclass(each, AttentionCore)}
    modifiers = {name: each for name, each in variants.items() if issubclass(each, AttentionModifier)}
    for model in models:
        refused = {name: why for name, each in cores.items() if (why := _refused(model, each))}
        if cores and len(refused) == len(cores):
            what = f"{', '.join(cores)} cannot stand in {model.name}: {next(iter(refused.values())).what}"
            raise BadInput(what, "Add one that can, such as multi_head.")
        fitting = [each for name, each in cores.items() if name not in refused]
        refused |= {name: why for name, each in modifiers.items() if (why := _refused_beside(model, each, fitting))}
        yield from (f"{name} cannot stand in {model.name}: {why.what}" for name, why in refused.items())


def _refused(model: Skeleton, core: type[Attention], *modifiers: type[AttentionModifier]) -> BadInput | None:
    mixing = attend(core(), [each() for each in modifiers])
    return model.refusal(lambda stack: operate(stack.model, mixing, model.max_len))


def _refused_beside(
    model: Skeleton, modifier: type[AttentionModifier], cores: Collection[type[AttentionCore]]
) -> BadInput | None:
    """Why a modifier cannot, whichever core it changes."""
    found = None
    for core in cores:
        if not contradiction(core, modifier) and not (found := _refused(model, core, modifier)):
            return None
    return found


def tunable(file: SpaceFile, models: Sequence[Skeleton], left_out: list[str], host: Host) -> SpaceFile:
    """The file without what cannot change how these models train: techniques, tunings and options of these, and what of
    tunings and attention variants goes with none of the others. Adds why. Raises BadInput where no tuning is left, or
    where a technique is fixed on that cannot."""
    if not models:
        return file
    file = suited(without_wordless(file, left_out, host), models, left_out, host)
    return matched(file, models, left_out, host)
