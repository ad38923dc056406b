"""Each promise has teeth: an optimizer that breaks it, and nothing but a promise that notices."""

import inspect
from dataclasses import dataclass
from typing import Annotated, ClassVar

import pytest
import torch

from deepmine_auto import Float, Optimizer, decay_groups
from deepmine_auto.testing.optimizer import OptimizerPromises


@dataclass(frozen=True, kw_only=True)
class Momentum(Optimizer):
    """Keeps every promise; the mutants below change one thing each."""

    name: ClassVar[str] = "momentum"
    source: ClassVar[str] = "a test"

    lr: Annotated[float, Float(1e-3, 0.1, log=True)] = 0.01

    def build(self, parameters):
        return torch.optim.SGD(decay_groups(parameters, 0.1), lr=self.lr, momentum=0.9)


class Climbs(Momentum):
    def build(self, parameters):
        return torch.optim.SGD(decay_groups(parameters, 0.0), lr=self.lr, momentum=0.9, maximize=True)


class ForgetsItsState(Momentum):
    def build(self, parameters):
        class Forgetful(torch.optim.SGD):
            def state_dict(self):
                return {**super().state_dict(), "state": {}}

        return Forgetful(decay_groups(parameters, 0.0), lr=self.lr, momentum=0.9)


class MovesTheFrozen(Momentum):
    def build(self, parameters):
        return torch.optim.SGD(parameters, lr=self.lr, momentum=0.9)


class MovesTheUnused(Momentum):
    def build(self, parameters):
        class Shrinking(torch.optim.SGD):
            @torch.no_grad()
            def step(self, closure=None):
                for group in self.param_groups:
                    for each in group["params"]:
                        each *= 1 - group["lr"]
                return super().step(closure)

        return Shrinking(decay_groups(parameters, 0.0), lr=self.lr, momentum=0.9)


class HidesItsRate(Momentum):
    def build(self, parameters):
        return torch.optim.SGD(decay_groups(parameters, 0.0), lr=2 * self.lr, momentum=0.9)


class IgnoresTheSchedule(Momentum):
    def build(self, parameters):
        rate = self.lr

        class Fixed(torch.optim.SGD):
            def step(self, closure=None):
                for group in self.param_groups:
                    group["lr"] = rate
                return super().step(closure)

        return Fixed(decay_groups(parameters, 0.0), lr=rate, momentum=0.9)


class ReadsTheFirstRate(Momentum):
    def build(self, parameters):
        class OfOneRate(torch.optim.SGD):
            def step(self, closure=None):
                rates = [group["lr"] for group in self.param_groups]
                for group in self.param_groups:
                    group["lr"] = rates[0]
                loss = super().step(closure)
                for group, rate in zip(self.param_groups, rates, strict=True):
                    group["lr"] = rate
                return loss

        return OfOneRate(decay_groups(parameters, 0.0), lr=self.lr, momentum=0.9)


@dataclass(frozen=True, kw_only=True)
class ExplodesAtTheEdge(Momentum):
    lr: Annotated[float, Float(1e-3, 1e30, log=True)] = 0.01


class PlaysDice(Momentum):
    def build(self, parameters):
        generator = torch.Generator()
        generator.seed()

        class Noisy(torch.optim.SGD):
            @torch.no_grad()
            def step(self, closure=None):
                for group in self.param_groups:
                    for each in group["params"]:
                        if each.grad is not None:
                            each.grad += 0.01 * torch.randn(each.shape, generator=generator)
                return super().step(closure)

        return Noisy(decay_groups(parameters, 0.0), lr=self.lr, momentum=0.9)


def broken_promises(optimizer, folder):
    kit = type("TestKit", (OptimizerPromises,), {"optimizer": optimizer})()
    broken = set()
    for name, promise in inspect.getmembers(kit, inspect.ismethod):
        try:
            promise(folder) if "tmp_path" in inspect.signature(promise).parameters else promise()
        except (AssertionError, RuntimeError):
            broken.add(name.removeprefix("test_"))
    return broken


def test_an_optimizer_that_does_its_work_breaks_no_promise(tmp_path):
    assert broken_promises(Momentum, tmp_path) == set()


@pytest.mark.parametrize(
    ("mutant", "promise"),
    [
        (Climbs, "it_lowers_a_quadratic"),
        (ForgetsItsState, "restored_in_the_middle_it_goes_on_bit_for_bit"),
        (MovesTheFrozen, "frozen_weights_stay_even_with_a_gradient"),
        (MovesTheUnused, "weights_without_a_gradient_stay"),
        (HidesItsRate, "the_schedule_finds_the_learning_rate_in_every_group"),
        (IgnoresTheSchedule, "the_schedule_finds_the_learning_rate_in_every_group"),
        (ReadsTheFirstRate, "each_group_moves_at_its_own_rate"),
        (ExplodesAtTheEdge, "every_range_can_be_drawn_and_built"),
        (PlaysDice, "the_same_seed_gives_the_same_weights"),
    ],
)
def test_a_mutant_breaks_the_promise_made_against_it(mutant, promise, tmp_path):
    assert promise in broken_promises(mutant, tmp_path)
