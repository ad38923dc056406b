import torch

from deepmine_auto.testing.optimizer import Bowl, OptimizerPromises, train
from deepmine_plugins.optimizers.adamw import AdamW


class TestAdamW(OptimizerPromises):
    optimizer = AdamW


def test_it_moves_as_torch_does_in_its_plain_form():
    ours, theirs = Bowl().double(), Bowl().double()
    plain = torch.optim.AdamW(
        [{"params": [theirs.matrix], "weight_decay": 0.2}, {"params": [theirs.bias], "weight_decay": 0.0}],
        lr=0.01,
        foreach=False,
        fused=False,
    )
    train(ours, AdamW(lr=0.01, decay=0.2).build(ours.parameters()), range(20))
    train(theirs, plain, range(20))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-12, atol=1e-12)
