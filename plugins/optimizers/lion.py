"""Lion: the sign of a momentum, found by searching over programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import Float, Optimizer, decay_groups

STEP_BETA = 0.9
"""How much of the momentum, beside the gradient, decides the sign of the step."""
MOMENTUM_BETA = 0.99
"""How much of the momentum is remembered."""


@dataclass(frozen=True, kw_only=True)
class Lion(Optimizer):
    """Every weight moves by exactly `lr` a step, so `lr` is 3 to 10 times below AdamW's, and `decay` as much above."""

    name: ClassVar[str] = "lion"
    source: ClassVar[str] = "arXiv:2302.06675"

    lr: Annotated[float, Float(1e-5, 1e-3, log=True)] = 1e-4
    decay: Annotated[float, Float(1e-3, 1.0, log=True)] = 0.1

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Make the optimizer; it keeps one momentum a weight."""
        return _Lion(decay_groups(parameters, self.decay), {"lr": self.lr})


class _Lion(torch.optim.Optimizer):
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._move([each for each in group["params"] if each.grad is not None], group["lr"], group["weight_decay"])
        return loss

    def _move(self, weights: list[Tensor], lr: float, decay: float) -> None:
        if not weights:
            return
        grads = [each.grad for each in weights if each.grad is not None]
        momenta = [self._momentum(each) for each in weights]
        steps = torch._foreach_lerp(momenta, grads, 1 - STEP_BETA)
        torch._foreach_sign_(steps)
        torch._foreach_mul_(weights, 1 - lr * decay)
        torch._foreach_add_(weights, steps, alpha=-lr)
        torch._foreach_lerp_(momenta, grads, 1 - MOMENTUM_BETA)

    def _momentum(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        momentum: Tensor = state["momentum"]
        return momentum
