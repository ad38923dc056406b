"""What every optimizer promises. Inherit it, name your class, and pytest runs the promises:

class TestMyOptimizer(OptimizerPromises):
    optimizer = MyOptimizer
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from deepmine_auto.contracts import Optimizer
from deepmine_auto.testing.drawing import drawn
from deepmine_auto.training import checkpoint
from deepmine_auto.training.groups import split_by_rate


class Bowl(nn.Module):
    """A quadratic of a matrix and a bias, lowest at 1, beside a frozen weight and one that no loss sees."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.matrix = nn.Parameter(torch.randn(4, 3, generator=generator))
        self.bias = nn.Parameter(torch.randn(3, generator=generator))
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(2, 2))

    def loss(self, noise: float = 0.0) -> Tensor:
        """Return half the squared distance to the lowest point, which lies `noise` off 1."""
        lowest = 1.0 + noise
        return 0.5 * ((self.matrix - lowest).square().sum() + (self.bias - lowest).square().sum())


class OptimizerPromises:
    """Promises of an optimizer plugin with its default fields, unless a promise says otherwise."""

    optimizer: ClassVar[type[Optimizer]]

    def test_it_lowers_a_quadratic(self) -> None:
        """Fifty steps end lower than they began."""
        bowl = Bowl()
        before = bowl.loss().item()
        train(bowl, self.optimizer().build(bowl.parameters()), range(50))
        assert bowl.loss().item() < before

    def test_restored_in_the_middle_it_goes_on_bit_for_bit(self, tmp_path: Path) -> None:
        """All its state is in `state_dict`, as tensors and plain values: checkpoints are never pickled."""
        bowl, again = Bowl(), Bowl()
        optimizer = self.optimizer().build(bowl.parameters())
        train(bowl, optimizer, range(4))
        again.load_state_dict(bowl.state_dict())
        checkpoint.save(tmp_path / "middle", *checkpoint.flatten_optimizer(optimizer))
        train(bowl, optimizer, range(4, 8))

        restored = self.optimizer().build(again.parameters())
        checkpoint.restore_optimizer(restored, *checkpoint.load(tmp_path / "middle"))
        train(again, restored, range(4, 8))
        assert_same_weights(again, bowl)

    def test_frozen_weights_stay_even_with_a_gradient(self) -> None:
        """A weight that does not require gradients is left out, decay included."""
        bowl = Bowl()
        bowl.frozen.grad = torch.ones(2, 2)
        train(bowl, self.optimizer().build(bowl.parameters()), range(3))
        assert torch.equal(bowl.frozen, torch.ones(2, 2))

    def test_weights_without_a_gradient_stay(self) -> None:
        """A weight that the loss does not reach is not moved, not even by decay."""
        bowl = Bowl()
        train(bowl, self.optimizer().build(bowl.parameters()), range(3))
        assert torch.equal(bowl.unused, torch.ones(2, 2))

    def test_the_schedule_finds_the_learning_rate_in_every_group(self) -> None:
        """The field `lr` is the `lr` of every group, and 0 there stops all weights."""
        bowl = Bowl()
        plugin = self.optimizer()
        optimizer = plugin.build(bowl.parameters())
        assert {group["lr"] for group in optimizer.param_groups} == {plugin.params()["lr"]}
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        train(bowl, optimizer, range(3))
        assert_same_weights(bowl, Bowl())

    def test_each_group_moves_at_its_own_rate(self) -> None:
        """As where a technique gives layers rates of their own: weights at a rate of 0 stay, and others move."""
        for still, moving in (("bias", "matrix"), ("matrix", "bias")):
            bowl, before = Bowl(), Bowl()
            optimizer = self.optimizer().build(bowl.parameters())
            split_by_rate(optimizer, {getattr(bowl, still): 0.0})
            train(bowl, optimizer, range(3))
            assert torch.equal(getattr(bowl, still), getattr(before, still)), "a rate of 0 moves weights"
            assert not torch.equal(getattr(bowl, moving), getattr(before, moving)), "the rate of others stops weights"

    @given(data=st.data())
    @settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.differing_executors])
    def test_every_range_can_be_drawn_and_built(self, data: st.DataObject) -> None:
        """Wherever the searched fields are drawn in their ranges, three steps stay finite."""
        bowl = Bowl()
        plugin = data.draw(drawn(self.optimizer))
        train(bowl, plugin.build(bowl.parameters()), range(3))
        assert all(each.isfinite().all() for each in bowl.parameters()), plugin

    def test_the_same_seed_gives_the_same_weights(self) -> None:
        """Two runs under one seed of torch end with the same bits."""
        first, second = Bowl(), Bowl()
        for bowl in (first, second):
            torch.manual_seed(0)
            train(bowl, self.optimizer().build(bowl.parameters()), range(5))
        assert_same_weights(first, second)


def train(bowl: Bowl, optimizer: torch.optim.Optimizer, steps: range) -> None:
    """Take steps; the noise of a step depends on its number alone."""
    for step in steps:
        bowl.matrix.grad = bowl.bias.grad = None
        torch.autograd.backward(bowl.loss(noise=0.3 * (-1) ** step))
        optimizer.step()


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    """Compare bit for bit."""
    for name, each in other.state_dict().items():
        assert torch.equal(one.state_dict()[name], each), f"'{name}' differs"
