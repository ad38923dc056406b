"""VeRA's random matrices are there once."""

from copy import deepcopy

import pytest
import torch

from deepmine_auto.pretrained.merging import merge
from deepmine_auto.testing.tuning import out_of, train, tuned
from deepmine_plugins.tunings.vera import Vera, _drawn, _Gains


def random_of(model):
    """The random matrices that its layers multiply by."""
    layers = [each for each in model.modules() if isinstance(each, _Gains)]
    assert len(layers) == 12
    return [each.matrix_NM for layer in layers for each in (layer.down, layer.up)]


@pytest.mark.parametrize("move", [lambda model: model, lambda model: model.double(), deepcopy])
def test_layers_of_one_size_share_theirs_wherever_the_model_moves(move):
    matrices = random_of(move(tuned(Vera())))
    assert len({id(each) for each in matrices}) == 2
    assert {id(each) for each in matrices[::2]} != {id(each) for each in matrices[1::2]}


def test_a_copy_has_its_own():
    model = tuned(Vera())
    own, copied = random_of(model), random_of(deepcopy(model))
    assert not {id(each) for each in own} & {id(each) for each in copied}


def test_they_are_drawn_from_the_same_seed_wherever_the_model_is_built_and_in_no_checkpoint():
    model, again = tuned(Vera(rank=64), seed=1), tuned(Vera(rank=64), seed=2)
    for each, other in zip(random_of(model), random_of(again), strict=True):
        assert torch.equal(each, other)
        assert torch.equal(each, _drawn(*each.shape))
    assert not [name for name in model.state_dict() if name.endswith("matrix_NM")]


def test_what_is_merged_leaves_the_matrices_of_the_others():
    model = tuned(Vera())
    train(model)
    before = out_of(model)
    assert merge(model)
    torch.testing.assert_close(out_of(model), before, rtol=1e-4, atol=1e-5)
