"""No hook of a modifier is dropped in silence, and what is none is not called."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from deepmine_auto import AttentionModifier, AttentionShape, Caps, Mask
from deepmine_auto.model.guard import NEEDED_BY, Refused
from deepmine_auto.model.multi_head import token_mixer
from deepmine_plugins.attention.linear import Linear
from deepmine_plugins.attention.multi_head import MultiHead

SHAPE = AttentionShape(dim=8, heads=2, kv_heads=2)


def modifier(module: nn.Module, declared: str) -> AttentionModifier:
    """A modifier whose module is this one, and what it says that it needs."""

    @dataclass(frozen=True, kw_only=True)
    class Mine(AttentionModifier):
        name: ClassVar[str] = "mine"
        source: ClassVar[str] = "a test"
        caps: ClassVar[Caps] = Caps.everywhere()
        needs = declared

        def build(self, shape):
            return module

    return Mine()


def with_hooks(*names: str) -> nn.Module:
    return type("Hooked", (nn.Module,), {name: lambda self, *_: None for name in names})()


@pytest.mark.parametrize("hook", NEEDED_BY)
@pytest.mark.parametrize("core", [Linear, MultiHead])
def test_a_hook_whose_need_is_not_declared_is_refused_whatever_the_core(core, hook):
    told = rf"'mine' has the hook '{hook}', and declares that it needs nothing\. Declare needs = \"{NEEDED_BY[hook]}\""
    with pytest.raises(Refused, match=told):
        token_mixer(core(), [modifier(with_hooks(hook), "nothing")], SHAPE)


@pytest.mark.parametrize("hook", NEEDED_BY)
def test_a_hook_whose_need_is_declared_is_taken(hook):
    assert token_mixer(MultiHead(), [modifier(with_hooks(hook), NEEDED_BY[hook])], SHAPE)


def test_hooks_of_two_needs_make_two_plugins():
    told = r"'mine' has the hook 'bias', and declares that it needs matrix\. Make one plugin for each need"
    with pytest.raises(Refused, match=told):
        token_mixer(MultiHead(), [modifier(with_hooks("bias", "on_scores"), "matrix")], SHAPE)


def test_a_parameter_with_the_name_of_a_hook_is_none():
    class Learns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.ones(2))
            self.on_weights = nn.Parameter(torch.ones(2))

        def on_qk(self, q_BHLK, k_BGSK, mask):
            return q_BHLK * self.bias[:, None, None], k_BGSK

    x_BLD = torch.randn(1, 5, 8)
    for core in (Linear, MultiHead):
        layer = token_mixer(core(), [modifier(Learns(), "nothing")], SHAPE)
        assert layer(x_BLD, Mask())[0].out.isfinite().all()
