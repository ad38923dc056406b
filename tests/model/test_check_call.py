"""What a variant is called with is what it declares."""

from types import SimpleNamespace

import pytest
import torch

from deepmine_auto import Mask
from deepmine_auto.model.guard import Refused, check_call
from deepmine_plugins.attention.sigmoid import Sigmoid


def test_half_floats_are_refused_unless_mixed_precision_made_them():
    half_BLD = torch.zeros(1, 2, 4, dtype=torch.bfloat16)
    with pytest.raises(Refused, match="'sigmoid' does not declare the dtype 'bfloat16'"):
        check_call(Sigmoid(), Mask(), half_BLD)
    with torch.autocast("cpu", torch.bfloat16):
        check_call(Sigmoid(), Mask(), half_BLD)


def test_a_device_is_refused_unless_nothing_is_computed_there():
    check_call(Sigmoid(), Mask(), torch.zeros(1, 2, 4, device="meta"))
    elsewhere = SimpleNamespace(device=SimpleNamespace(type="mps"), dtype=torch.float32)
    with pytest.raises(Refused, match="'sigmoid' does not declare the device 'mps'"):
        check_call(Sigmoid(), Mask(), elsewhere)
