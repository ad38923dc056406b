"""A bundle's probe: a few token ids and what the model makes of them, so that a load can tell whether it still does.

Weights alone do not make a model: a plugin of another version may compute something else with them, without an error.

Shapes: B batch, L length, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

LENGTHS = (8, 5)
MOST_NUMBERS = 64
TOLERANCE = 1e-3
"""Other processors round otherwise, by some 1e-6; another formula is off by far more."""


def probe(model: nn.Module, vocabulary: int) -> list[float]:
    """The first outputs for a batch of two rows, one of them padded, on the model's device."""
    with torch.inference_mode():  # what is made in it is of another kind to a compiled model
        at_BL = torch.arange(len(LENGTHS) * max(LENGTHS)).view(len(LENGTHS), -1)
        keep_BL = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
        tokens_BL = torch.where(keep_BL, 1 + (3 + 7919 * at_BL) % (vocabulary - 1), 0)
        device = next(model.parameters()).device
        outputs = model.eval()(tokens_BL.to(device), keep_BL.to(device)).out
    return [float(each) for each in outputs.flatten()[:MOST_NUMBERS]]


def same(found: Sequence[float], expected: Sequence[float]) -> bool:
    """Whether two probes are of one model, up to rounding."""
    near = (abs(a - b) <= TOLERANCE * max(1.0, abs(b)) for a, b in zip(found, expected, strict=False))
    return len(found) == len(expected) and all(near)
