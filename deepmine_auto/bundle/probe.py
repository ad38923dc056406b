"""A bundle's probe: a few token ids and what the model makes of them, so that a load can tell whether it still does.

Weights alone do not make a model: a plugin of another version may compute something else with them, without an error.

Shapes: B batch, L length, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deepmine_auto.contracts import Prepared
from deepmine_auto.host import Host
from deepmine_auto.model.assemble import backbone_of
from deepmine_auto.model.encoder_decoder import separator_of

LENGTHS = (8, 5)
SOURCE = 2
"""So many tokens stand before the separator, for a model that takes rows apart."""
MOST_NUMBERS = 64
TOLERANCE = 1e-3
"""Other processors round otherwise, by some 1e-6; another formula is off by far more."""


def separator_for(params: Mapping[str, Any], prepared: Prepared, host: Host) -> int | None:
    """The token between source and target where a backbone takes rows apart, which it cannot do without; else None."""
    return separator_of(prepared) if backbone_of(params, host).pairs else None


def probe(model: nn.Module, vocabulary: int, separator: int | None = None) -> list[float]:
    """The first outputs for a batch of two rows, one of them padded, on the model's device; with a separator, each row
    is a source and a target."""
    with torch.inference_mode():  # what is made in it is of another kind to a compiled model
        keep_BL = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
        tokens_BL = torch.where(keep_BL, _tokens(vocabulary, separator), 0)
        device = next(model.parameters()).device
        outputs = model.eval()(tokens_BL.to(device), keep_BL.to(device)).out
    return [float(each) for each in outputs.flatten()[:MOST_NUMBERS]]


def _tokens(vocabulary: int, separator: int | None) -> Tensor:
    at_BL = torch.arange(len(LENGTHS) * max(LENGTHS)).view(len(LENGTHS), -1)
    tokens_BL = 1 + (3 + 7919 * at_BL) % (vocabulary - 1)
    if separator is None:
        return tokens_BL
    # one that stands there by chance would leave nothing before it: the next token takes its place
    tokens_BL = tokens_BL.masked_fill(tokens_BL == separator, 1 + separator % (vocabulary - 1))
    tokens_BL[:, SOURCE] = separator
    return tokens_BL


def same(found: Sequence[float], expected: Sequence[float]) -> bool:
    """Whether two probes are of one model, up to rounding."""
    near = (abs(a - b) <= TOLERANCE * max(1.0, abs(b)) for a, b in zip(found, expected, strict=False))
    return len(found) == len(expected) and all(near)
