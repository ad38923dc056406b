"""The word vectors that a training can move at all: those of tokens that are in its rows.

The table of a pretrained model has tens or hundreds of thousands of tokens, and a task's rows have a few of them. These
learn; the others stay what they were, and cost neither gradients nor an optimizer's memory. Nor do they decay.

Shapes: V vocabulary, S seen tokens, E dim of word vectors, L length, D dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmine_auto.pretrained.parts import asked
from deepmine_auto.pretrained.stack import PretrainedStack

if TYPE_CHECKING:
    from deepmine_auto.training.batching import Columns

MOST = 0.5
"""Where a larger share of the tokens is seen, the table stays whole."""


class SeenWords(nn.Embedding):
    """A table of which some rows learn, `weight` (S, E), and the others, `rest` (V - S, E), do not."""

    seen_V: Tensor
    row_V: Tensor

    def __init__(self, table: nn.Embedding, seen_V: Tensor) -> None:
        super().__init__(table.num_embeddings, table.embedding_dim, table.padding_idx, _weight=table.weight)
        whole_VE = table.weight.detach()
        self.weight = nn.Parameter(whole_VE[seen_V])
        self.rest = nn.Parameter(whole_VE[~seen_V], requires_grad=False)
        row_V = torch.where(seen_V, seen_V.cumsum(0), (~seen_V).cumsum(0)) - 1
        self.register_buffer("seen_V", seen_V, persistent=False)
        self.register_buffer("row_V", row_V, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the vectors (..., E) of tokens (...)."""
        seen, row = self.seen_V[tokens], self.row_V[tokens]
        learning = F.embedding(row.where(seen, 0), self.weight)
        return torch.where(seen[..., None], learning, F.embedding(row.where(~seen, 0), self.rest))

    def rows_of(self, tokens_N: Tensor) -> Tensor:
        """Where in `weight` the vectors of tokens stand, for those that learn."""
        return self.row_V[tokens_N[self.seen_V[tokens_N]]]

    def merged_layer(self) -> nn.Embedding:
        """The whole table again."""
        whole_VE = self.weight.new_empty(self.num_embeddings, self.embedding_dim)
        whole_VE[self.seen_V], whole_VE[~self.seen_V] = self.weight.detach(), self.rest
        return nn.Embedding(self.num_embeddings, self.embedding_dim, self.padding_idx, _weight=whole_VE)


def leave_unseen(stack: nn.Module, parts: Sequence[Columns], unknown: int | None) -> None:
    """Let of a pretrained stack's word vectors those learn whose tokens are in some rows, or stand for the unknown.

    A table stays whole that is frozen, of which most is seen, that stands in several places, that does more than look
    up, or that its model reads in another way. So does any other module.
    """
    table: Any = stack.model.get_input_embeddings() if isinstance(stack, PretrainedStack) else None
    if type(table) is not nn.Embedding or not table.weight.requires_grad:
        return
    seen_V = _seen(table, parts, unknown)
    places = [(parent, name) for parent in stack.modules() for name, each in parent.named_children() if each is table]
    tied = sum(each is table.weight for _, each in stack.named_parameters(remove_duplicate=False))
    if tied == len(places) == 1 and seen_V.float().mean() <= MOST:
        _put(stack.model, *places[0], SeenWords(table, seen_V))


def _seen(table: nn.Embedding, parts: Sequence[Columns], unknown: int | None) -> Tensor:
    seen_V = torch.zeros(table.num_embeddings, dtype=torch.bool)
    seen_V[torch.from_numpy(np.unique(np.concatenate([each.tokens for each in parts])))] = True
    if unknown is not None:
        seen_V[unknown] = True
    if table.padding_idx is not None:
        seen_V[table.padding_idx] = False
    return seen_V.to(table.weight.device)


def _put(model: Any, parent: nn.Module, name: str, words: SeenWords) -> None:
    """Put it there, unless the model then says something else."""
    table, before_LD = getattr(parent, name), _said(model, words)
    setattr(parent, name, words)
    try:
        same = torch.equal(_said(model, words), before_LD)
    except (AttributeError, IndexError, RuntimeError):  # it reads the weights by itself
        same = False
    if not same:
        setattr(parent, name, table)


def _said(model: Any, words: SeenWords) -> Tensor:
    """What a model says of tokens of which some learn."""
    ids_1L = torch.stack((words.seen_V.nonzero()[-1], (~words.seen_V).nonzero()[-1])).T
    with asked(model), torch.random.fork_rng([ids_1L.device] if ids_1L.is_cuda else []):
        out_1LD: Tensor = model(input_ids=ids_1L, attention_mask=torch.ones_like(ids_1L)).last_hidden_state
    return out_1LD
