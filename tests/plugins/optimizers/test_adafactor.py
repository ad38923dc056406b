import pytest
import torch

from deepmine_auto.testing.optimizer import Bowl, OptimizerPromises, train
from deepmine_plugins.optimizers.adafactor import Adafactor


class TestAdafactor(OptimizerPromises):
    optimizer = Adafactor


def test_a_matrix_ten_times_as_large_moves_ten_times_as_far():
    moved = []
    for scale in (1.0, 10.0):
        weight = torch.nn.Parameter(scale * torch.ones(4, 3))
        optimizer = Adafactor(lr=0.01).build([weight])
        weight.grad = torch.ones(4, 3)
        optimizer.param_groups[0]["weight_decay"] = 0.0
        optimizer.step()
        moved.append((scale - weight).mean().item())
    assert moved == pytest.approx([0.01, 0.1], rel=1e-3)


def test_it_keeps_a_number_a_row_and_a_number_a_column():
    weight = torch.nn.Parameter(torch.ones(40, 30))
    optimizer = Adafactor().build([weight])
    weight.grad = torch.ones(40, 30)
    optimizer.step()
    assert sum(each.numel() for each in optimizer.state[weight].values()) == 40 + 30 + 1


def test_a_bias_does_not_decay():
    bowl = Bowl()
    groups = Adafactor(decay=0.05).build(bowl.parameters()).param_groups
    decays = {id(each): group["weight_decay"] for group in groups for each in group["params"]}
    assert decays == {id(bowl.matrix): 0.05, id(bowl.unused): 0.05, id(bowl.bias): 0.0}
    train(bowl, Adafactor(decay=0.05).build(bowl.parameters()), range(1))
