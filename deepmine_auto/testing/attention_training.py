"""That an attention variant trains as it is judged: padding stays unseen, a checkpoint holds all that it learned, and
mixed precision does.

Shapes: B batch, L length, D dim, N real tokens of all rows.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.testing import assert_close

from deepmine_auto.contracts import Mode
from deepmine_auto.model.mask import Mask
from deepmine_auto.testing.attention_kit import AttentionKit
from deepmine_auto.testing.layers import DIM, ROWS, SHAPE, layer_of, longest, mixed_by, numbers, set_seed

STEPS = 3


class TrainingPromises(AttentionKit):
    """It trains."""

    def test_padding_is_not_seen_in_training(self) -> None:
        """Neither what stands there nor, where nothing is drawn by chance, how much of it there is."""
        self.needs("padding" in self.caps.masks, "padding")
        x_BLD, keep_BL = padded_rows(longest(self.caps))
        other_BLD, most = torch.where(keep_BL[..., None], x_BLD, 3.0 + x_BLD), int(keep_BL.sum(1).max())
        for mode in self.modes():
            before_ND = self._in_training(mode, x_BLD, keep_BL)
            assert_close(self._in_training(mode, other_BLD, keep_BL), before_ND, rtol=1e-7, atol=1e-9)
            if torch.equal(self._in_training(mode, x_BLD, keep_BL, seed=1), before_ND):
                shorter_ND = self._in_training(mode, x_BLD[:, :most], keep_BL[:, :most])
                assert_close(shorter_ND, before_ND, rtol=1e-7, atol=1e-9)

    @torch.no_grad()
    def _in_training(self, mode: Mode, x_BLD: Tensor, keep_BL: Tensor, seed: int = 0) -> Tensor:
        """What a new layer makes of the real tokens (N, D); what it draws, it draws of this seed."""
        layer = layer_of(self.variant(), mode).train()
        torch.default_generator.manual_seed(seed)
        return mixed_by(layer, x_BLD, Mask(padding=keep_BL, causal=mode == "causal")).out[keep_BL]

    def test_all_that_training_changes_stands_in_the_state_dict(self) -> None:
        """A new layer that loads it, built of other random numbers, says the same, in evaluation and in training."""
        self.needs(self.caps.deterministic, "that it is deterministic")
        for mode in self.modes():
            layer, x_BLD = layer_of(self.variant(), mode), numbers(ROWS, min(9, longest(self.caps)), DIM)
            for step in range(STEPS):
                take_step(layer, x_BLD, mode, (step + 1) / STEPS)
            again = self.attend(replace(SHAPE, mode=mode)).double()
            again.load_state_dict(layer.state_dict())
            for trains in (False, True):
                ours, theirs = (said(each.train(trains), x_BLD, mode) for each in (layer, again))
                assert_close(theirs, ours, rtol=1e-7, atol=1e-9)

    def test_it_trains_in_mixed_precision(self) -> None:
        """With weights in float32 and products in bfloat16, outputs and gradients are finite."""
        self.needs("bfloat16" in self.caps.dtypes, "bfloat16")
        x_BLD, keep_BL = padded_rows(longest(self.caps))
        padding = keep_BL if "padding" in self.caps.masks else None
        for mode in self.modes():
            layer, read_BLD = layer_of(self.variant(), mode).float().train(), x_BLD.float().requires_grad_()
            with torch.autocast("cpu", torch.bfloat16):
                out = mixed_by(layer, read_BLD, Mask(padding=padding, causal=mode == "causal")).out
            torch.autograd.backward(out.float().square().sum())
            gradients = [each.grad for each in (read_BLD, *layer.parameters()) if each.grad is not None]
            assert all(each.isfinite().all() for each in (out, *gradients))


def padded_rows(length: int) -> tuple[Tensor, Tensor]:
    """Rows (B, L, D) that end after a third and a half of the length, and what to keep of them (B, L)."""
    real_B1 = torch.tensor([[length // 3], [length // 2]]).clamp_min(1)
    return numbers(ROWS, length, DIM), torch.arange(length) < real_B1


def take_step(layer: nn.Module, x_BLD: Tensor, mode: Mode, done: float) -> None:
    """Move the weights by plain gradient descent, and tell what asks for it how much of the training is done."""
    layer.train().zero_grad()
    mixed = mixed_by(layer, x_BLD.clone().requires_grad_(), Mask(causal=mode == "causal"))
    torch.autograd.backward(sum(mixed.losses.values(), mixed.out.square().mean()))
    with torch.no_grad():
        for each in layer.parameters():
            if each.grad is not None:
                each.sub_(0.1 * each.grad)
    for step in [getattr(each, "step", None) for each in layer.modules()]:
        if callable(step):
            step(done)


def said(layer: nn.Module, x_BLD: Tensor, mode: Mode) -> tuple[Tensor, Tensor]:
    """What a layer makes of rows, and the gradient of that by the rows."""
    set_seed()
    read_BLD = x_BLD.clone().requires_grad_()
    out_BLD = mixed_by(layer, read_BLD, Mask(causal=mode == "causal")).out
    (gradient_BLD,) = torch.autograd.grad(out_BLD.square().sum(), read_BLD)
    return out_BLD, gradient_BLD
