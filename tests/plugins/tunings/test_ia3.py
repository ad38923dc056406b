"""IA3's gains are moved by the loss alone."""

import torch

from deepmine_auto.testing.tuning import tuned
from deepmine_plugins.optimizers.adamw import AdamW
from deepmine_plugins.tunings.ia3 import Ia3


def test_gains_of_which_the_loss_feels_nothing_stay_at_one():
    model = tuned(Ia3()).double()  # a weight keeps what was said on it wherever a model moves
    gains = [each for each in model.parameters() if each.requires_grad]
    for each in gains:
        each.grad = torch.zeros_like(each)
    AdamW(lr=0.1, decay=0.5).build(model.parameters()).step()
    assert len(gains) == 18, "six layers in each of three blocks"
    assert all(torch.equal(each, torch.ones_like(each)) for each in gains)
