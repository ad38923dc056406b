"""A pretrained model with other attention in it, beside the model that it was before: what their layers say, compared.

Shapes: B batch, L length, D dim.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from deepmine_auto.contracts import Companion
from deepmine_auto.pretrained.parts import blocks_of
from deepmine_auto.pretrained.stack import PretrainedStack
from deepmine_auto.pretrained.surgery import restored, was_operated


def healer_of(model: nn.Module) -> Healer | None:
    """What can heal the pretrained model in a model; None where no attention was replaced."""
    stacks = (each for each in model.modules() if isinstance(each, PretrainedStack) and was_operated(each.model))
    stack = next(stacks, None)
    return None if stack is None else Healer(stack)


class Healer(Companion):
    """The loss `healing`: the squared difference between the vectors of a row after each block, with the old attention
    and with the new, over the variance of the old ones, as a mean of blocks and rows, times `weight`."""

    def __init__(self, stack: PretrainedStack) -> None:
        self.weight = 1.0
        self.before = deepcopy(stack)
        restored(self.before.model)
        self.before.eval().requires_grad_(False)
        self.said, self.would_say = _Blocks(stack.model), _Blocks(self.before.model, always=True)

    def losses(self, tokens_BL: Tensor, keep_BL: Tensor, out_BLD: Tensor) -> dict[str, Tensor]:
        """How far what the blocks said is from what they would have said of these tokens."""
        with torch.no_grad():
            self.before(tokens_BL, keep_BL)
        pairs = zip(self.said.taken(), self.would_say.taken(), strict=True)
        apart = [_apart(now_BLD, then_BLD, keep_BL) for now_BLD, then_BLD in pairs]
        return {"healing": self.weight * torch.stack(apart).mean()}

    def rest(self) -> None:
        """Listen no more."""
        for each in (*self.said.hooks, *self.would_say.hooks):
            each.remove()


class _Blocks:
    """Listens to what the blocks of a model say, in training or `always`."""

    def __init__(self, model: nn.Module, *, always: bool = False) -> None:
        self.out: list[Tensor] = []
        self.hooks = [each.register_forward_hook(self._hear) for each in blocks_of(model)]
        self.always = always

    def _hear(self, block: nn.Module, _args: Any, out: Any) -> None:
        if block.training or self.always:
            self.out.append(out[0] if isinstance(out, tuple) else out)

    def taken(self) -> list[Tensor]:
        """What was said since this was asked last."""
        out, self.out = self.out, []
        return out


def _apart(now_BLD: Tensor, then_BLD: Tensor, keep_BL: Tensor) -> Tensor:
    now_BLD, then_BLD = (each[:, -keep_BL.shape[1] :].float() for each in (now_BLD, then_BLD))  # a prompt comes first
    real_BL1 = keep_BL[..., None].to(then_BLD.dtype)
    numbers_B = real_BL1.sum((1, 2)) * then_BLD.shape[-1]
    mean_B = (then_BLD * real_BL1).sum((1, 2)) / numbers_B
    spread_B = ((then_BLD - mean_B[:, None, None]).square() * real_BL1).sum((1, 2))
    apart_B = ((now_BLD - then_BLD).square() * real_BL1).sum((1, 2))
    return (apart_B / spread_B.clamp_min(1e-12)).mean()
