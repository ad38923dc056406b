"""Where no GPU is asked for none is used, though the machine has some."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Empty, it hides all GPUs: from torch where that has not looked yet, and from `device_here` at any time."""


@contextmanager
def seeing(gpus: float | None) -> Iterator[None]:
    """Let this process, and those that it starts, see no GPU where 0 were asked for; None is all that there are."""
    before = os.environ.get(VISIBLE)
    if gpus == 0:
        os.environ[VISIBLE] = ""
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(VISIBLE, None)
        else:
            os.environ[VISIBLE] = before
