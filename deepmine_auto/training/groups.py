"""Which weights decay: matrices and tables do; biases and norms, which have less than two dimensions, do not.

Decay pulls towards zero what multiplies the input; a bias or a gain would only be moved off its place. A gain that is
kept as a matrix of one row or column looks like the weight of a map, so whoever puts it in says `decays = False` on it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from deepmine_auto.errors import BadInput

if TYPE_CHECKING:
    import torch
    from torch import nn


def decay_groups(parameters: Iterable[nn.Parameter], decay: float) -> list[dict[str, Any]]:
    """Return the groups that a torch optimizer takes, with `weight_decay` set. Frozen weights are in none, and
    those with `decays = False` do not decay.

    Raises BadInput where every weight is frozen.
    """
    moving = [each for each in parameters if each.requires_grad]
    if not moving:
        raise BadInput("Every weight of this model is frozen.", "Leave at least one layer to train.")
    groups = [
        {"params": [each for each in moving if _decays(each)], "weight_decay": decay},
        {"params": [each for each in moving if not _decays(each)], "weight_decay": 0.0},
    ]
    return [each for each in groups if each["params"]]


def _decays(weight: nn.Parameter) -> bool:
    return weight.ndim >= 2 and getattr(weight, "decays", True)


def split_by_rate(optimizer: torch.optim.Optimizer, factors: Mapping[nn.Parameter, float]) -> None:
    """Give weights with a factor a group of their own, whose learning rate is so many times that of their group.

    For an optimizer that has taken no step yet.
    """
    groups = []
    for group in optimizer.param_groups:
        parts: dict[float, list[nn.Parameter]] = defaultdict(list)
        for each in group["params"]:
            parts[factors.get(each, 1.0)].append(each)
        groups += [{**group, "params": own, "lr": group["lr"] * factor} for factor, own in parts.items()]
    optimizer.param_groups[:] = groups
