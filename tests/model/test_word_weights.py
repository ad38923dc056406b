"""What a technique disturbs is the table of token vectors, or what is trained next to it."""

import pytest
import torch
from torch import nn

from deepmine_auto import BadInput, word_rows, word_weights

VOCABULARY = 7


def model_of(**frozen):
    """Positions, token vectors, a norm of vectors alone, and two layers."""
    model = nn.ModuleDict(
        {
            "positions": nn.Embedding(5, 4),
            "table": nn.Embedding(VOCABULARY, 4, padding_idx=0),
            "norm": nn.LayerNorm(4),
            "first": nn.Linear(4, 3),
            "second": nn.Linear(3, 2),
        }
    )
    for each in frozen:
        model[each].requires_grad_(False)
    return model


def test_it_is_the_table_of_token_vectors():
    model = model_of()
    assert word_weights(model, VOCABULARY) is model["table"].weight


def test_a_table_may_have_more_rows_than_there_are_tokens():
    model = model_of()
    assert word_weights(model, VOCABULARY - 1) is model["table"].weight


def test_where_the_table_is_frozen_it_is_the_next_matrix_that_is_trained():
    model = model_of(positions=True, table=True)
    assert word_weights(model, VOCABULARY) is model["first"].weight
    model["first"].requires_grad_(False)
    assert word_weights(model, VOCABULARY) is model["second"].weight


def test_the_vectors_of_tokens_stand_where_the_tokens_say():
    assert word_rows(model_of(), VOCABULARY, torch.tensor([3, 6])).tolist() == [3, 6]


def test_what_is_no_table_of_every_token_has_no_rows_of_tokens():
    assert word_rows(model_of(table=True), VOCABULARY, torch.tensor([3])) is None


def test_a_model_that_is_frozen_throughout_is_refused():
    model = model_of().requires_grad_(False)
    with pytest.raises(BadInput, match=r"Every weight of this model is frozen\. .*Leave at least one layer to train"):
        word_weights(model, VOCABULARY)
