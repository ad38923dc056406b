"""Our entmax equals the package of its authors."""

import pytest
import torch
from entmax import entmax_bisect, sparsemax
from torch.testing import assert_close

from deepmine_auto import AttentionShape
from deepmine_plugins.attention.entmax import Entmax, EntmaxFunction


def scores(scale: float, length: int) -> torch.Tensor:
    return scale * torch.randn(20, length, dtype=torch.float64, generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize("alpha", [1.01, 1.05, 1.5, 1.95, 1.999])
@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("length", [1, 2, 30, 500])
def test_weights_equal_those_of_bisection(alpha, scale, length):
    x, alphas = scores(scale, length), torch.full((1, 1), alpha, dtype=torch.float64)
    expected = entmax_bisect(x, alpha=alphas, n_iter=100)
    assert_close(EntmaxFunction.apply(x, alphas), expected, atol=1e-9, rtol=1e-7)
    assert_close(EntmaxFunction.apply(x.float(), alphas.float()), expected.float(), atol=3e-5, rtol=1e-4)


@pytest.mark.parametrize("alpha", [1.2, 1.5, 1.9])
def test_gradients_of_scores_and_alpha_are_those_of_the_function(alpha):
    x, alphas = scores(1.0, 6)[:3].requires_grad_(), torch.full((1, 1), alpha, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(EntmaxFunction.apply, (x, alphas))


def test_far_scores_get_exactly_zero_and_alpha_near_two_is_sparsemax():
    x = torch.tensor([[-2.0, 0.0, 0.5]], dtype=torch.float64)
    found = EntmaxFunction.apply(x, torch.full((1, 1), 1.999999, dtype=torch.float64))
    assert found[0, 0] == 0.0
    assert_close(found, sparsemax(x, dim=-1), atol=1e-5, rtol=0.0)


def test_hidden_scores_have_no_weight_and_no_gradient():
    x = torch.tensor([[1.0, -torch.inf, 0.9]], dtype=torch.float64, requires_grad=True)
    weights = EntmaxFunction.apply(x, torch.full((1, 1), 1.5, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(weights[0, 0], x)
    assert weights[0, 1] == 0.0
    assert gradient[0, 1] == 0.0
    assert gradient.isfinite().all()


def test_each_head_learns_its_alpha_from_where_it_begins():
    module = Entmax(alpha=1.7).build(AttentionShape(dim=8, heads=2, kv_heads=2))
    assert_close(module.alphas, torch.tensor([1.7, 1.7]))
    module.normalize(torch.randn(1, 2, 3, 4)).square().sum().backward()
    assert (module.logit_H.grad != 0.0).all()
