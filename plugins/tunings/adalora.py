"""AdaLoRA: beside each frozen matrix learns a sum of columns times rows, each with a gain, and those that matter least
are taken away, whichever matrix they stand at.

Shapes: B batch, L length, I and O what a layer reads and writes, R rank, N = O + I + 1 the numbers of one rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import Choice, Float, Tuning, linears_of, wrap

MORE = 1.5
"""So many times the ranks that are kept are there at first."""
BEGIN, END = 0.1, 0.5
"""The shares of the training between which ranks are taken away."""
TIMES = 100
"""So often within a training it is asked which ranks matter; in between, those that were taken away may come back."""
SMOOTH = 0.85


@dataclass(frozen=True, kw_only=True)
class AdaLora(Tuning):
    """Of `rank` ranks a matrix and half as many more, `rank` are kept on average, and their sum counts `scale` times.
    `price` weighs how far columns and rows are from orthogonal, which makes gains comparable. A trial that is pruned
    before half of its training has more ranks than these. They stand in the highest share `top` of the blocks, at least
    one."""

    name: ClassVar[str] = "adalora"
    source: ClassVar[str] = "arXiv:2303.10512"

    rank: Annotated[int, Choice(2, 4, 8, 16)] = 8
    scale: Annotated[float, Choice(1.0, 2.0, 4.0)] = 2.0
    price: Annotated[float, Float(0.01, 0.5, log=True)] = 0.1
    targets: Annotated[str, Choice("attention", "linear")] = "linear"
    top: Annotated[float, Choice(0.25, 0.5, 1.0)] = 1.0

    def apply(self, model: nn.Module) -> None:
        """Freeze the model, and put the ranks into it. Raises BadInput where it has no such layers."""
        model.requires_grad_(False)
        for name in linears_of(model, self.targets, self.top):
            wrap(model, name, lambda layer: _Ranks(layer, math.ceil(MORE * self.rank), self.scale))
        layers = [each for each in model.modules() if isinstance(each, _Ranks)]
        model.add_module("budget", _Budget(layers, self.rank * len(layers), self.price))


class _Ranks(nn.Module):
    """Columns, gains and rows, and how much each number of them was felt in the loss so far."""

    def __init__(self, base_layer: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.base_layer, self.scale = base_layer, scale
        read, written = base_layer.in_features, base_layer.out_features
        self.columns_OR = nn.Parameter(torch.randn(written, rank) * written**-0.5)
        self.gains_R = nn.Parameter(torch.zeros(rank))
        self.rows_RI = nn.Parameter(torch.randn(rank, read) * read**-0.5)
        self.kept_R: Tensor
        self.felt_RN: Tensor
        self.unsure_RN: Tensor
        self.done: Tensor
        self.register_buffer("kept_R", torch.ones(rank, dtype=torch.bool))
        self.register_buffer("felt_RN", torch.zeros(rank, read + written + 1))
        self.register_buffer("unsure_RN", torch.zeros(rank, read + written + 1))
        self.register_buffer("done", torch.zeros((), dtype=torch.float64))

    @property
    def weight(self) -> Tensor:
        """The layer's own, whose dtype some models ask for."""
        return self.base_layer.weight

    def forward(self, x_BLI: Tensor) -> Tensor:
        gained_BLR = nn.functional.linear(x_BLI, self.rows_RI) * self.gains_R
        out_BLO: Tensor = self.base_layer(x_BLI)
        return out_BLO + self.scale * nn.functional.linear(gained_BLR, self.columns_OR)

    def merged_layer(self) -> nn.Linear:
        """The layer with what was learned worked into it."""
        with torch.no_grad():
            self.base_layer.weight += self.scale * (self.columns_OR * self.gains_R) @ self.rows_RI
        return self.base_layer

    def skew(self) -> Tensor:
        """How far columns and rows are from orthogonal ones of length one."""
        one_RR = torch.eye(len(self.gains_R), device=self.gains_R.device)
        products = self.columns_OR.T @ self.columns_OR, self.rows_RI @ self.rows_RI.T
        return torch.stack([torch.linalg.matrix_norm(each - one_RR) for each in products]).sum()

    def feel(self) -> None:
        """Note how much the last step's loss felt each number: itself times its gradient."""
        learned = self.columns_OR, self.rows_RI, self.gains_R
        gradients = [each.grad for each in learned if each.grad is not None]
        if len(gradients) < len(learned):
            return
        felt_RN = (_joined(*learned) * _joined(*gradients)).abs()
        self.felt_RN.lerp_(felt_RN, 1 - SMOOTH)
        self.unsure_RN.lerp_((felt_RN - self.felt_RN).abs(), 1 - SMOOTH)

    def matter_R(self) -> Tensor:
        """How much each rank matters: its gain, and the means of its column and row."""
        parts = (len(self.columns_OR), self.rows_RI.shape[1], 1)
        return torch.stack([each.mean(1) for each in (self.felt_RN * self.unsure_RN).split(parts, 1)]).sum(0)


def _joined(columns_OR: Tensor, rows_RI: Tensor, gains_R: Tensor) -> Tensor:
    return torch.cat((columns_OR.T, rows_RI, gains_R[:, None]), 1)


class _Budget(nn.Module):
    """Shares ranks out among layers. All that it remembers stands in them, so that nothing of it is left when they are
    merged."""

    def __init__(self, layers: Sequence[_Ranks], ranks: int, price: float) -> None:
        super().__init__()
        self.layers, self.ranks, self.price = tuple(layers), ranks, price

    def extra_losses(self) -> dict[str, Tensor]:
        """Return what is to be paid for skew, as a mean over layers, in training."""
        if not self.training:
            return {}
        return {"orthogonality": self.price * torch.stack([each.skew() for each in self.layers]).mean()}

    @torch.no_grad()
    def step(self, done: float) -> None:
        """Note what the loss felt, and take ranks away when it is time to."""
        before = float(self.layers[0].done)
        for each in self.layers:
            each.feel()
            each.done.fill_(done)
        due = done >= BEGIN and before < END and int(TIMES * before) < int(TIMES * done)
        if due:
            self._share_out(done)
        if due or done >= END:
            for each in self.layers:
                each.gains_R.mul_(each.kept_R)

    def _share_out(self, done: float) -> None:
        matter = torch.cat([each.matter_R() for each in self.layers])
        left = 1 - (min(done, END) - BEGIN) / (END - BEGIN)
        count = self.ranks + round((len(matter) - self.ranks) * left**3)
        kept = torch.zeros_like(matter, dtype=torch.bool)
        kept[matter.topk(count).indices] = True
        for each, kept_R in zip(self.layers, kept.split([len(each.kept_R) for each in self.layers]), strict=True):
            each.kept_R.copy_(kept_R)
