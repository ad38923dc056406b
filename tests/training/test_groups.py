import pytest
import torch
from torch import nn

from deepmine_auto import BadInput, decay_groups


def test_matrices_decay_and_biases_and_norms_do_not():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    decayed, plain = decay_groups(model.parameters(), 0.1)
    assert [each.shape for each in decayed["params"]] == [torch.Size([5, 4]), torch.Size([4, 4])]
    assert decayed["weight_decay"] == 0.1
    assert [each.ndim for each in plain["params"]] == [1, 1, 1]
    assert plain["weight_decay"] == 0.0


def test_frozen_weights_are_in_no_group():
    model = nn.Linear(4, 4)
    model.weight.requires_grad_(False)
    (group,) = decay_groups(model.parameters(), 0.1)
    assert group["params"] == [model.bias]


def test_a_model_with_every_weight_frozen_is_refused():
    with pytest.raises(BadInput, match=r"Every weight of this model is frozen.*Leave at least one layer"):
        decay_groups(nn.Linear(4, 4).requires_grad_(False).parameters(), 0.1)
