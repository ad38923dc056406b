import pytest
import torch

from deepmine_auto.testing.optimizer import Bowl, OptimizerPromises, train
from deepmine_plugins.optimizers.lion import Lion


class TestLion(OptimizerPromises):
    optimizer = Lion


@pytest.mark.parametrize(("name", "decay"), [("matrix", 0.3), ("bias", 0.0)])
def test_it_follows_the_paper_written_as_a_loop(name, decay):
    bowl = Bowl().double()
    weight = getattr(bowl, name).detach().clone()
    momentum = torch.zeros_like(weight)
    train(bowl, Lion(lr=0.02, decay=0.3).build(bowl.parameters()), range(60))
    for step in range(60):
        grad = weight - (1.0 + 0.3 * (-1) ** step)
        direction = torch.sign(0.9 * momentum + 0.1 * grad)
        weight = weight - 0.02 * (direction + decay * weight)
        momentum = 0.99 * momentum + 0.01 * grad
    torch.testing.assert_close(getattr(bowl, name).detach(), weight, rtol=1e-12, atol=1e-12)


def test_every_weight_moves_by_exactly_the_learning_rate():
    weight = torch.nn.Parameter(torch.zeros(4, 3))
    optimizer = Lion(lr=1e-3).build([weight])
    weight.grad = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    assert torch.equal(weight.detach(), -1e-3 * weight.grad.sign())


def test_a_closure_is_evaluated_with_gradients():
    bowl = Bowl()
    optimizer = Lion().build(bowl.parameters())

    def closure():
        loss = bowl.loss()
        loss.backward()
        return loss

    before = bowl.loss().item()
    assert optimizer.step(closure).item() == before
    assert bowl.loss().item() < before
