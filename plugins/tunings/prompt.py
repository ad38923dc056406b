"""Prompt tuning: a few learned vectors before the input, and a frozen model that reads them as words.

Shapes: P length of the prompt, V vocabulary, E dim of word vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from deepmine_auto import Choice, Tuning, before_words


@dataclass(frozen=True, kw_only=True)
class Prompt(Tuning):
    """The prompt begins with words of the model that are drawn, and learns what to add to their vectors; so the model
    says from the first step on something else than it did. Words keep their positions, and all of the prompt stands at
    that of the first. It is cut off what the model says, and makes each input longer by `length`. Few numbers, which
    want a large learning rate and a large model."""

    name: ClassVar[str] = "prompt"
    source: ClassVar[str] = "arXiv:2104.08691"
    rate: ClassVar[float] = 1e-2
    neutral: ClassVar[bool] = False

    length: Annotated[int, Choice(4, 8, 16, 32)] = 16

    def apply(self, model: nn.Module) -> None:
        """Freeze the model, and put the prompt before it. Raises Refused where its words or variants count from the
        beginning."""
        model.requires_grad_(False)
        before_words(model, lambda table: _Prompt(table, self.length))


class _Prompt(nn.Module):
    def __init__(self, table: nn.Embedding, length: int) -> None:
        super().__init__()
        self.words_P: Tensor
        self.register_buffer("words_P", torch.randint(table.num_embeddings, (length,)))
        self.added_PE = nn.Parameter(torch.zeros(length, table.embedding_dim))

    def forward(self, table: nn.Embedding) -> Tensor:
        """Return (P, E)."""
        words_PE: Tensor = table(self.words_P)
        return words_PE + self.added_PE
