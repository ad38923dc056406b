"""Where a model turns tokens into vectors, for techniques that disturb them."""

from __future__ import annotations

from torch import nn

from deepmine_auto.errors import BadInput


def word_weights(model: nn.Module, vocabulary: int) -> nn.Parameter:
    """The table of token vectors (V, E); where it is frozen, the first matrix that is not.

    Raises BadInput where every weight is frozen.
    """
    embeddings = (each.weight for each in model.modules() if isinstance(each, nn.Embedding))
    table = min((each for each in embeddings if len(each) >= vocabulary), key=len, default=None)
    weights = [each for each in model.parameters() if each.requires_grad and each.ndim >= 2]
    if not weights:
        raise BadInput("Every weight of this model is frozen.", "Leave at least one layer to train.")
    return next((each for each in weights if each is table), weights[0])
