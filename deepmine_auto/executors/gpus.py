"""Which GPUs are used, and how much of them: none where none is asked for, though the machine has some."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Empty, it hides all GPUs: from torch where that has not looked yet, and from `device_here` at any time."""

OWN_BYTES = 0.5e9
"""What a process takes of a GPU beside torch's tensors."""


def gpus_here() -> int:
    """The GPUs that torch can use: those of a driver that is too old are there, and cannot be."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def keep_to_share(share: float) -> None:
    """Let torch take no more than this share of a GPU, where several processes have theirs: who takes too much shall
    run out of memory itself, and not its neighbour."""
    import torch

    if 0 < share < 1 and torch.cuda.is_available():
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(max(share / 2, share - OWN_BYTES / whole))


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
