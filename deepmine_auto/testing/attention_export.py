"""That a layer of an attention variant leaves Python: as one program for rows of any number and length, and as ONNX.

Shapes: B batch, L length, D dim.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.testing import assert_close

from deepmine_auto.contracts import Mode
from deepmine_auto.model.mask import Mask
from deepmine_auto.testing.attention_kit import AttentionKit
from deepmine_auto.testing.layers import DIM, LONG, SHAPE, TOLERANCE, layer_of, mixed_by, numbers

ANY_SIZE = {0: Dim("rows"), 1: Dim("length", max=SHAPE.max_len)}
MADE_WITH = (2, 9)
OTHERS = ((1, 5), (3, LONG))
"""Rows and lengths that a program was not made with. The second is past the short path of what works by blocks."""
TOOLS = ("onnx", "onnxscript", "onnxruntime")


class ExportPromises(AttentionKit):
    """It can be exported, if it says so: no loop over tokens, no branch on their number or on what they hold."""

    def test_it_exports_for_any_batch_and_length(self) -> None:
        """The program that torch.export makes equals the layer at other sizes, with padding as an input."""
        self.needs(self.caps.onnx, "onnx")
        layer = self.alone()
        with torch.no_grad(), nothing_kept():
            program = torch.export.export(layer, rows_of(*MADE_WITH), dynamic_shapes=(ANY_SIZE, ANY_SIZE))
        compare(layer, program.module())

    def test_it_runs_as_onnx(self) -> None:
        """The program that onnxruntime runs equals the layer at other sizes, with padding as an input."""
        self.needs(self.caps.onnx, "onnx")
        for tool in TOOLS:
            pytest.importorskip(tool, reason=f"{tool} is not installed")
        layer, sizes = self.alone(), (ANY_SIZE, ANY_SIZE)
        program = torch.onnx.export(layer, rows_of(*MADE_WITH), dynamo=True, dynamic_shapes=sizes, verbose=False)
        assert program is not None
        compare(layer, lambda *inputs: program(*inputs)[0])

    def alone(self) -> nn.Module:
        """A layer as a function of tensors alone: a causal one, which asks for more, where that is declared."""
        mode = self.modes()[-1]
        return _Alone(layer_of(self.variant(), mode).float(), mode, padded="padding" in self.caps.masks).eval()


class _Alone(nn.Module):
    def __init__(self, layer: nn.Module, mode: Mode, *, padded: bool) -> None:
        super().__init__()
        self.layer, self.causal, self.padded = layer, mode == "causal", padded

    def forward(self, x_BLD: Tensor, keep_BL: Tensor) -> Tensor:
        return mixed_by(self.layer, x_BLD, Mask(padding=keep_BL if self.padded else None, causal=self.causal)).out


def rows_of(rows: int, length: int) -> tuple[Tensor, Tensor]:
    """Tokens (B, L, D), and what to keep of them (B, L): the first half, and one more in each further row."""
    keep_BL = torch.arange(length) < (length + 1) // 2 + torch.arange(rows)[:, None]
    return numbers(rows, length, DIM).float(), keep_BL


def nothing_kept() -> AbstractContextManager[None]:
    """While tracing, keep no results for operations that come again: here few do, and it takes half of the time."""
    from torch._dynamo import config  # torch.export needs it too, but takes a second to import it

    if not hasattr(config, "fake_tensor_cache_enabled"):
        return nullcontext()
    patched: AbstractContextManager[None] = config.patch(fake_tensor_cache_enabled=False)
    return patched


@torch.no_grad()
def compare(layer: nn.Module, program: Callable[..., Tensor]) -> None:
    """Both give the same, at sizes other than the program was made with."""
    for size in OTHERS:
        inputs = rows_of(*size)
        assert_close(program(*inputs), layer(*inputs), rtol=TOLERANCE["float32"], atol=TOLERANCE["float32"])
