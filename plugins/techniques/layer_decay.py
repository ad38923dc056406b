"""Layer decay: the deeper a layer lies below the head, the smaller is its learning rate.

What pretrained layers know of language at large stays, and what is near the answer learns it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import nn

from deepmine_auto import Applied, Float, Technique, TrainingFacts

BACKBONE = "backbone."
NUMBER = re.compile(r"\.(\d+)(?=\.|$)")
"""The number of a block in the name of a weight; numbers that follow are of parts of the block."""


@dataclass(frozen=True, kw_only=True)
class LayerDecay(Technique):
    """The head learns at the full rate, the top block at `decay` times it, each block below at `decay` times that of
    the one above, and the embeddings below all. What follows the blocks, such as a last norm, learns as the top one;
    where a backbone numbers its blocks twice, those of one number learn alike."""

    name: ClassVar[str] = "layer_decay"
    source: ClassVar[str] = "arXiv:2003.10555"
    touches = frozenset({"weights"})

    decay: Annotated[float, Float(0.6, 0.99)] = 0.9

    def build(self, facts: TrainingFacts) -> Applied:
        """Make what scales the learning rates; it knows nothing of the trial."""
        del facts
        return _Decayed(self.decay)


class _Decayed(Applied):
    def __init__(self, decay: float) -> None:
        self.decay = decay

    def rates(self, model: nn.Module) -> Mapping[str, float]:
        """Return `decay ** (distance from the head)` for each weight of the backbone."""
        names = [name for name, _ in model.named_parameters() if name.startswith(BACKBONE)]
        blocks = {name: int(found[1]) for name in names if (found := NUMBER.search(name))}
        top = max(blocks.values(), default=0)
        before = _before(names, blocks) | _tables(model)
        places = {name: blocks.get(name, -1 if name in before else top) for name in names}
        return {name: self.decay ** (top + 1 - place) for name, place in places.items()}


def _before(names: list[str], blocks: Mapping[str, int]) -> set[str]:
    """The weights that a backbone has before those of its blocks: what belongs to its embeddings."""
    first = next((at for at, name in enumerate(names) if name in blocks), 0)
    return set(names[:first])


def _tables(model: nn.Module) -> set[str]:
    return {f"{name}.weight" for name, each in model.named_modules() if isinstance(each, nn.Embedding)}
