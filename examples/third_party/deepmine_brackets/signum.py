"""Signum: the sign of the momentum, and nothing else, says where a weight goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import Float, Optimizer


@dataclass(frozen=True, kw_only=True)
class Signum(Optimizer):
    """Every weight moves by exactly `lr` a step."""

    name: ClassVar[str] = "signum"
    source: ClassVar[str] = "arXiv:1802.04434"

    lr: Annotated[float, Float(1e-5, 1e-2, log=True)] = 1e-3
    momentum: Annotated[float, Float(0.8, 0.99)] = 0.9

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimizer of the weights that are trained."""
        return _Signum([each for each in parameters if each.requires_grad], {"lr": self.lr, "momentum": self.momentum})


class _Signum(torch.optim.Optimizer):
    def __init__(self, parameters: Iterable[nn.Parameter], defaults: dict[str, Any]) -> None:
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every weight that has a gradient."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for weight in (each for each in group["params"] if each.grad is not None):
                velocity = self._velocity(weight)
                velocity.mul_(group["momentum"]).add_(weight.grad, alpha=1 - group["momentum"])
                weight.add_(velocity.sign(), alpha=-group["lr"])
        return loss

    def _velocity(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(weight)
        velocity: Tensor = state["velocity"]
        return velocity
