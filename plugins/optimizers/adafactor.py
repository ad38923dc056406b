"""Adafactor: AdamW's idea with one number a row and one a column in place of one a weight."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import nn

from deepmine_auto import Float, Optimizer, decay_groups


@dataclass(frozen=True, kw_only=True)
class Adafactor(Optimizer):
    """Steps are relative: a matrix moves by `lr` times its own root mean square (at least 1e-3), so `lr` is about 10
    times above AdamW's. At step t the relative step is at most 1 / sqrt(t), whatever the schedule says."""

    name: ClassVar[str] = "adafactor"
    source: ClassVar[str] = "arXiv:1804.04235"

    lr: Annotated[float, Float(1e-3, 0.1, log=True)] = 1e-2
    decay: Annotated[float, Float(1e-4, 0.1, log=True)] = 1e-3

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Make torch's Adafactor; decay takes off `lr * decay` a step, as AdamW's does."""
        return torch.optim.Adafactor(decay_groups(parameters, self.decay), lr=self.lr)
