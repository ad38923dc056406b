"""Each promise of a tuning has teeth, and ours keep them all."""

import inspect
from dataclasses import dataclass
from typing import Annotated, ClassVar

import pytest
import torch
from torch import nn

from deepmine_auto import Float, PretrainedStack, Tuning, blocks_of
from deepmine_auto.host import the_host
from deepmine_auto.pretrained.parts import ends_of, wrap
from deepmine_auto.testing.tuning import TuningPromises


class Beside(nn.Module):
    """A layer, and a matrix that learns beside it from zero on; the mutants below each do one wrong thing."""

    def __init__(self, layer):
        super().__init__()
        self.base_layer = layer.requires_grad_(False)
        self.more = nn.Linear(layer.in_features, layer.out_features, bias=False)
        nn.init.zeros_(self.more.weight)

    def forward(self, x):
        return self.base_layer(x) + self.more(x)

    def merged_layer(self):
        with torch.no_grad():
            self.base_layer.weight += self.more.weight
        return self.base_layer


class Plain(Tuning):
    name: ClassVar[str] = "plain"
    source: ClassVar[str] = "a test"
    Layer: ClassVar[type[nn.Module]] = Beside

    def apply(self, model):
        model.requires_grad_(False)
        for block in blocks_of(model):
            wrap(block, ends_of(block)[0], type(self).Layer)

    def __init_subclass__(cls):
        dataclass(frozen=True, kw_only=True)(cls)


class Works(Plain):
    """Breaks nothing."""


class NothingLearns(Plain):
    def apply(self, model):
        model.requires_grad_(False)


class BeginsElsewhere(Plain):
    class Layer(Beside):
        def __init__(self, layer):
            super().__init__(layer)
            nn.init.normal_(self.more.weight)


class DeclaresLess(Plain):
    neutral: ClassVar[bool] = False


class LosesWeights(Plain):
    def apply(self, model):
        super().apply(model)
        blocks_of(model)[0].attention.self.query.register_parameter("bias", None)


class MovesTheFrozen(Plain):
    class Layer(Beside):
        def forward(self, x):
            if self.training:
                self.base_layer.weight.data.mul_(0.99)
            return super().forward(x)


class MergesOtherwise(Plain):
    class Layer(Beside):
        def merged_layer(self):
            return self.base_layer


class LeavesSomething(Plain):
    def apply(self, model):
        super().apply(model)
        model.register_buffer("left", torch.zeros(1))


class HidesItsState(Plain):
    class Layer(Beside):
        def __init__(self, layer):
            super().__init__(layer)
            self.hidden = torch.randn(layer.in_features)

        def forward(self, x):
            return self.base_layer(x) + self.more(x * self.hidden)


class PlaysDice(Plain):
    generator = torch.Generator().manual_seed(0)

    class Layer(Beside):
        def __init__(self, layer):
            super().__init__(layer)
            self.base_layer.register_buffer("dice", torch.rand(1, generator=PlaysDice.generator))


class LooksAtPadding(Plain):
    class Layer(Beside):
        def forward(self, x):
            return self.base_layer(x) + self.more(x) + self.more(x).sum(1, keepdim=True)


class KnowsOneNameOfNorms(Plain):
    def apply(self, model):
        for name, each in model.named_parameters():
            each.requires_grad_("norm" in name.lower())


class LooksAtItsStack(Plain):
    """What a trial gives to a tuning holds the model of transformers."""

    def apply(self, model):
        assert isinstance(model, PretrainedStack)
        super().apply(model.model)


class ExplodesAtTheEdge(Plain):
    strength: Annotated[float, Float(0.0, 1e38)] = 0.0

    def apply(self, model):
        super().apply(model)
        blocks_of(model)[0].register_forward_hook(lambda block, args, out: out * (1 + self.strength * 1e10))


def broken_promises(tuning):
    kit = type("TestKit", (TuningPromises,), {"tuning": tuning})()
    broken = set()
    for name, promise in inspect.getmembers(kit, inspect.ismethod):
        try:
            promise()
        except pytest.skip.Exception:
            continue
        except (AssertionError, RuntimeError, TypeError):
            broken.add(name.removeprefix("test_"))
    return broken


@pytest.mark.parametrize("tuning", [Works, LooksAtItsStack])
def test_a_tuning_that_does_its_work_breaks_no_promise(tuning):
    assert broken_promises(tuning) == set()


@pytest.mark.parametrize(
    ("mutant", "promise"),
    [
        (NothingLearns, "something_learns"),
        (BeginsElsewhere, "it_begins_as_the_model_that_others_trained"),
        (DeclaresLess, "it_begins_as_the_model_that_others_trained"),
        (LosesWeights, "every_weight_that_others_trained_is_still_there"),
        (MovesTheFrozen, "what_is_frozen_stays"),
        (MergesOtherwise, "merged_it_says_the_same_and_nothing_of_it_is_left"),
        (LeavesSomething, "merged_it_says_the_same_and_nothing_of_it_is_left"),
        (HidesItsState, "loaded_again_it_says_the_same"),
        (PlaysDice, "the_same_seed_gives_the_same_weights"),
        (LooksAtPadding, "padding_changes_nothing"),
        (KnowsOneNameOfNorms, "in_another_architecture_something_learns_or_it_is_refused"),
        (ExplodesAtTheEdge, "every_range_can_be_drawn_and_trained"),
    ],
)
def test_a_mutant_breaks_the_promise_made_against_it(mutant, promise):
    assert promise in broken_promises(mutant)


OURS = sorted(the_host().offered("tuning"))


@pytest.mark.parametrize("name", OURS)
def test_ours_break_no_promise(name):
    assert broken_promises(the_host().get("tuning", name)) == set()
