"""Stochastic gradient descent with Nesterov momentum."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import nn

from deepmine_auto import Float, Optimizer, decay_groups


@dataclass(frozen=True, kw_only=True)
class Sgd(Optimizer):
    """Steps grow with the gradient, so `lr` is 10 to 100 times above AdamW's; `decay` is added to the gradient."""

    name: ClassVar[str] = "sgd"
    source: ClassVar[str] = "https://proceedings.mlr.press/v28/sutskever13.html"

    lr: Annotated[float, Float(1e-2, 1.0, log=True)] = 0.1
    momentum: Annotated[float, Float(0.8, 0.99)] = 0.9
    decay: Annotated[float, Float(1e-6, 1e-2, log=True)] = 1e-4

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Make torch's SGD in its fused form."""
        groups = decay_groups(parameters, self.decay)
        return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=True, fused=True)
