import pytest
import torch
from torch import nn

from deepmine_auto import BadInput, decay_groups
from deepmine_auto.testing.optimizer import Bowl, assert_same_weights, train
from deepmine_auto.training import checkpoint
from deepmine_auto.training.groups import split_by_rate
from deepmine_plugins.optimizers.adafactor import Adafactor
from deepmine_plugins.optimizers.adamw import AdamW
from deepmine_plugins.optimizers.lion import Lion
from deepmine_plugins.optimizers.sgd import Sgd


def test_matrices_decay_and_biases_and_norms_do_not():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    decayed, plain = decay_groups(model.parameters(), 0.1)
    assert [each.shape for each in decayed["params"]] == [torch.Size([5, 4]), torch.Size([4, 4])]
    assert decayed["weight_decay"] == 0.1
    assert [each.ndim for each in plain["params"]] == [1, 1, 1]
    assert plain["weight_decay"] == 0.0


def test_a_gain_that_is_kept_as_a_matrix_says_so_and_does_not_decay_and_a_map_of_that_shape_does():
    gain, score = nn.Parameter(torch.ones(1, 4)), nn.Linear(4, 1).weight
    gain.decays = False
    decayed, plain = decay_groups([gain, score], 0.1)
    assert (decayed["params"], plain["params"]) == ([score], [gain])


def test_frozen_weights_are_in_no_group():
    model = nn.Linear(4, 4)
    model.weight.requires_grad_(False)
    (group,) = decay_groups(model.parameters(), 0.1)
    assert group["params"] == [model.bias]


def test_a_model_with_every_weight_frozen_is_refused():
    with pytest.raises(BadInput, match=r"Every weight of this model is frozen.*Leave at least one layer"):
        decay_groups(nn.Linear(4, 4).requires_grad_(False).parameters(), 0.1)


# -- learning rates of their own ---------------------------------------------------------------------------------------

OPTIMIZERS = [AdamW, Lion, Sgd, Adafactor]
each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda each: each.name)


def moved(optimizer, factor):
    """How far the first step moves the matrix, and the bias."""
    bowl, before = Bowl(), Bowl()
    built = optimizer().build(bowl.parameters())
    split_by_rate(built, {bowl.matrix: factor})
    train(bowl, built, range(1))
    return [(now - old).detach() for now, old in ((bowl.matrix, before.matrix), (bowl.bias, before.bias))]


def test_each_weight_is_in_one_group_whose_rate_is_that_of_the_optimizer_times_its_factor():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    table, matrix, bias, gain, shift = model.parameters()
    optimizer = AdamW(lr=0.1, decay=0.01).build(model.parameters())
    split_by_rate(optimizer, {table: 0.25, bias: 0.5, shift: 0.5})
    rates = [(each, group["lr"]) for group in optimizer.param_groups for each in group["params"]]
    assert len(rates) == 5
    assert dict(rates) == {table: 0.1 * 0.25, matrix: 0.1, bias: 0.1 * 0.5, gain: 0.1, shift: 0.1 * 0.5}


def test_what_decays_and_what_does_not_stay_apart():
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    optimizer = AdamW(decay=0.01).build(model.parameters())
    split_by_rate(optimizer, dict.fromkeys(model.parameters(), 0.5))
    decays = {each: group["weight_decay"] for group in optimizer.param_groups for each in group["params"]}
    assert decays == {each: 0.01 if each.ndim == 2 else 0.0 for each in model.parameters()}


@each_optimizer
def test_without_factors_the_groups_are_what_they_were(optimizer):
    bowl = Bowl()
    built = optimizer().build(bowl.parameters())
    before = [dict(group) for group in built.param_groups]
    split_by_rate(built, {})
    assert [group.keys() for group in built.param_groups] == [group.keys() for group in before]
    for now, old in zip(built.param_groups, before, strict=True):
        assert all(one is other for one, other in zip(now.pop("params"), old.pop("params"), strict=True))
        assert now == old


@each_optimizer
def test_half_the_rate_makes_half_the_first_step_of_that_weight_alone(optimizer):
    (matrix_43, bias_3), (half_43, same_3) = moved(optimizer, 1.0), moved(optimizer, 0.5)
    assert matrix_43.abs().min() > 0.0
    torch.testing.assert_close(half_43, 0.5 * matrix_43, rtol=1e-3, atol=1e-6)
    assert torch.equal(same_3, bias_3)


@each_optimizer
def test_with_factors_it_still_lowers_a_quadratic(optimizer):
    bowl = Bowl()
    before = bowl.loss().item()
    built = optimizer().build(bowl.parameters())
    split_by_rate(built, {bowl.matrix: 0.5, bowl.bias: 0.25})
    train(bowl, built, range(50))
    assert bowl.loss().item() < before


@each_optimizer
def test_a_split_optimizer_is_restored_in_the_middle_bit_for_bit(optimizer, tmp_path):
    bowl, again = Bowl(), Bowl()
    built = optimizer().build(bowl.parameters())
    split_by_rate(built, {bowl.matrix: 0.5})
    train(bowl, built, range(4))
    again.load_state_dict(bowl.state_dict())
    checkpoint.save(tmp_path / "middle", *checkpoint.flatten_optimizer(built))
    train(bowl, built, range(4, 8))

    restored = optimizer().build(again.parameters())
    split_by_rate(restored, {again.matrix: 0.5})
    checkpoint.restore_optimizer(restored, *checkpoint.load(tmp_path / "middle"))
    assert [group["lr"] for group in restored.param_groups] == [group["lr"] for group in built.param_groups]
    train(again, restored, range(4, 8))
    assert_same_weights(again, bowl)
