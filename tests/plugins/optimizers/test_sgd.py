import torch

from deepmine_auto.testing.optimizer import Bowl, OptimizerPromises, train
from deepmine_plugins.optimizers.sgd import Sgd


class TestSgd(OptimizerPromises):
    optimizer = Sgd


def test_it_follows_nesterov_written_as_a_loop():
    bowl = Bowl().double()
    weight_43, velocity_43 = bowl.matrix.detach().clone(), torch.zeros(4, 3, dtype=torch.float64)
    train(bowl, Sgd(lr=0.05, momentum=0.8, decay=0.01).build(bowl.parameters()), range(10))
    for step in range(10):
        grad_43 = weight_43 - (1.0 + 0.3 * (-1) ** step) + 0.01 * weight_43
        velocity_43 = 0.8 * velocity_43 + grad_43
        weight_43 = weight_43 - 0.05 * (grad_43 + 0.8 * velocity_43)
    torch.testing.assert_close(bowl.matrix.detach(), weight_43, rtol=1e-12, atol=1e-12)
