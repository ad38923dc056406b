"""Where a model turns tokens into vectors, for techniques that disturb them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from deepmine_auto.errors import BadInput


def word_weights(model: nn.Module, vocabulary: int) -> nn.Parameter:
    """Return the table of token vectors (V, E); where it is frozen or missing, the first matrix that is not.

    Raises BadInput where every weight is frozen.
    """
    weights = [each for each in model.parameters() if each.requires_grad and each.ndim >= 2]
    if not weights:
        raise BadInput("Every weight of this model is frozen.", "Leave at least one layer to train.")
    table: Any = _table(model, vocabulary)
    first: nn.Parameter = weights[0] if table is None else table.weight
    return first


def word_rows(model: nn.Module, vocabulary: int, tokens_N: Tensor) -> Tensor | None:
    """Where in what `word_weights` returns the vectors of tokens stand, but for those that do not learn; None where it
    is no table of them."""
    table: Any = _table(model, vocabulary)
    if table is None:
        return None
    rows_N: Tensor = table.rows_of(tokens_N) if hasattr(table, "rows_of") else tokens_N
    return rows_N


def _table(model: nn.Module, vocabulary: int) -> nn.Embedding | None:
    """The smallest table that has every token, where it learns: larger ones hold more than words."""
    tables = [each for each in model.modules() if isinstance(each, nn.Embedding) and each.num_embeddings >= vocabulary]
    table = min(tables, key=lambda each: each.num_embeddings, default=None)
    return table if table is not None and table.weight.requires_grad else None
