"""Mixed precision, as a module meets it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def in_mixed_precision(x: Tensor) -> bool:
    """Whether products of tensors like this one are computed in fewer digits than it has."""
    return x.device.type != "meta" and torch.is_autocast_enabled(x.device.type)


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """Leave mixed precision where it is on, for what half floats would round away; tensors stay as they are. Nothing is
    entered elsewhere: an exported program could not leave it."""
    return torch.autocast(x.device.type, enabled=False) if in_mixed_precision(x) else nullcontext()
