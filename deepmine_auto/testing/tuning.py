"""What every tuning promises. Inherit it, name your class, and pytest runs the promises:

    class TestMyTuning(TuningPromises):
        tuning = MyTuning

Shapes: B batch, L length, D dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from deepmine_auto.contracts import Tuning
from deepmine_auto.errors import BadInput
from deepmine_auto.model.multi_head import token_mixer
from deepmine_auto.pretrained.merging import merge
from deepmine_auto.pretrained.stack import PretrainedStack
from deepmine_auto.testing.drawing import drawn
from deepmine_auto.testing.layers import Softmax

IDS_BL = torch.tensor([[2, 5, 7, 3], [2, 6, 3, 0]])
KEEP_BL = torch.tensor([[True, True, True, True], [True, True, True, False]])
BASE = ".base_layer"
"""Where a wrapped layer stands within what wraps it."""

BERT = {"model_type": "bert", "vocab_size": 12, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
        "intermediate_size": 32}  # fmt: skip
GPT2 = {"model_type": "gpt2", "vocab_size": 12, "n_positions": 16, "n_embd": 16, "n_layer": 3, "n_head": 2,
        "bos_token_id": 1, "eos_token_id": 1}  # fmt: skip
"""Two architectures that call their parts otherwise; the maps of GPT-2 are no `nn.Linear`."""


@dataclass(frozen=True, kw_only=True)
class Own(Softmax):
    """Softmax as a model computes it, which is left to it."""

    neutral: ClassVar[Mapping[str, Any] | None] = {}


def original(architecture: Mapping[str, Any] = BERT) -> PretrainedStack:
    """A stack of three small layers, whose weights stand for those that others trained."""
    prepared: Any = SimpleNamespace(architecture=architecture, max_len=16)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return PretrainedStack(prepared, lambda shape: token_mixer(Own(), [], shape), dropout=0.0)


def tuned(tuning: Tuning, seed: int = 1, architecture: Mapping[str, Any] = BERT) -> PretrainedStack:
    """The same with the tuning applied."""
    model = original(architecture)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        tuning.apply(model)
    return model


def out_of(model: PretrainedStack) -> Tensor:
    """What it says of the real tokens, (tokens, D), in evaluation mode."""
    with torch.no_grad():
        return said(model.eval())


def said(model: PretrainedStack) -> Tensor:
    """What it says of the real tokens, (tokens, D)."""
    out_BLD: Tensor = model(IDS_BL, KEEP_BL).out
    return out_BLD[KEEP_BL]


def train(model: PretrainedStack, steps: int = 3) -> None:
    """Take some steps of plain gradient descent on what learns; what begins at zero needs two of them to move."""
    learning = [each for each in model.parameters() if each.requires_grad]
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        for _ in range(steps if learning else 0):
            model.train().zero_grad()
            torch.autograd.backward(said(model).pow(3).sum())
            with torch.no_grad():
                for each in learning:
                    if each.grad is not None:
                        each.sub_(0.01 * each.grad)


class TuningPromises:
    """Promises of a tuning plugin with its default fields, unless a promise says otherwise. They are held with a BERT
    of three layers and random weights, in the stack that a trial gives to a tuning."""

    tuning: ClassVar[type[Tuning]]

    @given(data=st.data())
    @settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.differing_executors])
    def test_every_range_can_be_drawn_and_trained(self, data: st.DataObject) -> None:
        """Wherever the searched fields are drawn in their ranges, outputs stay finite."""
        plugin = data.draw(drawn(self.tuning))
        model = tuned(plugin)
        train(model, 1)
        assert out_of(model).isfinite().all(), str(plugin)

    def test_it_begins_as_the_model_that_others_trained(self) -> None:
        """Before the first step nothing is said otherwise: what learns beside a model begins at nothing. A plugin that
        cannot do so declares not to be `neutral`."""
        begun, before = out_of(tuned(self.tuning())), out_of(original())
        if not self.tuning.neutral:
            assert not torch.allclose(begun, before), "it declares not to be neutral, and is"
            pytest.skip("it declares not to be neutral")
        torch.testing.assert_close(begun, before)

    def test_something_learns(self) -> None:
        """With its default fields."""
        model = tuned(self.tuning())
        train(model)
        assert not torch.equal(out_of(model), out_of(tuned(self.tuning())))

    def test_in_another_architecture_something_learns_or_it_is_refused(self) -> None:
        """In a GPT-2, whose parts have other names; BadInput says what it cannot tune."""
        try:
            model = tuned(self.tuning(), architecture=GPT2)
        except BadInput as refused:
            pytest.skip(f"it refuses a GPT-2: {refused}")
        begun = out_of(model)
        train(model)
        assert not torch.equal(out_of(model), begun), "nothing learns"

    def test_every_weight_that_others_trained_is_still_there(self) -> None:
        """Under its name, or that of the layer that wraps it with `base_layer` in it."""
        there = {name.replace(BASE, ""): each for name, each in tuned(self.tuning()).state_dict().items()}
        for name, each in original().state_dict().items():
            assert name in there, f"{name} is gone"
            assert torch.equal(there[name], each), f"{name} is another one"

    def test_what_is_frozen_stays(self) -> None:
        """Training moves only what requires gradients."""
        model = tuned(self.tuning())
        before = {name: each.detach().clone() for name, each in model.named_parameters() if not each.requires_grad}
        train(model)
        after = dict(model.named_parameters())
        assert all(torch.equal(after[name], each) for name, each in before.items())

    def test_merged_it_says_the_same_and_nothing_of_it_is_left(self) -> None:
        """Where every wrapped layer has a `merged_layer()`, what is exported is a model as others know it."""
        model = tuned(self.tuning())
        train(model)
        before, whole = out_of(model), merge(model)
        torch.testing.assert_close(out_of(model), before, rtol=1e-4, atol=1e-5)
        if not whole:
            pytest.skip("it stays beside the model, and its plugin is needed to load one")
        assert model.state_dict().keys() == original().state_dict().keys()

    def test_loaded_again_it_says_the_same(self) -> None:
        """All that it learned is in the state dict, whatever it drew when it was applied."""
        model, again = tuned(self.tuning(), seed=1), tuned(self.tuning(), seed=2)
        train(model)
        again.load_state_dict(model.state_dict())
        assert torch.equal(out_of(again), out_of(model))

    def test_the_same_seed_gives_the_same_weights(self) -> None:
        """What it draws comes from torch's generator."""
        one, other = (tuned(self.tuning(), seed=3).state_dict() for _ in range(2))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)

    def test_padding_changes_nothing(self) -> None:
        """What is said of a row does not depend on how far it is padded."""
        model = tuned(self.tuning())
        train(model)
        with torch.no_grad():
            out_BLD = model.eval()(IDS_BL[1:, :3], KEEP_BL[1:, :3]).out
        torch.testing.assert_close(out_of(model)[4:], out_BLD[0], rtol=1e-4, atol=1e-5)
