"""The teacher's share of the loss is the paper's, for the rows that a batch holds."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from deepmine_auto.contracts import Batch
from deepmine_auto.ensemble.teaching import Taught
from deepmine_auto.model.guard import Refused


def step(rows, keep_BL):
    batch = Batch(torch.zeros_like(keep_BL, dtype=torch.int64), keep_BL, torch.zeros(len(keep_BL)), rows)
    return SimpleNamespace(batch=batch)


def by_hand(teacher_C, outputs_C, temperature):
    soft, own = (np.exp(each / temperature) / np.exp(each / temperature).sum() for each in (teacher_C, outputs_C))
    return float((soft * np.log(soft / own)).sum()) * temperature**2


def test_each_row_learns_from_what_was_said_of_it_wherever_it_stands_in_the_batch():
    teacher_NC = np.random.default_rng(0).normal(size=(5, 3))
    outputs_BC = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))
    found = Taught(teacher_NC, 0.3, 2.0).more_loss(step(torch.tensor([4, 1]), torch.ones(2, 1) > 0), outputs_BC)
    pairs = zip(teacher_NC[[4, 1]], outputs_BC.numpy(), strict=True)
    assert float(found) == pytest.approx(0.3 * np.mean([by_hand(*each, 2.0) for each in pairs]), rel=1e-5)


def test_tokens_past_an_end_and_those_that_the_teacher_did_not_read_teach_nothing():
    teacher_NLC = np.array([[[1.0, 2.0], [0.0, 0.0], [3.0, 1.0]]])
    outputs_BLC = torch.tensor([[[0.5, 0.1], [9.0, 1.0], [7.0, 1.0], [8.0, 1.0]]])
    keep_BL = torch.tensor([[True, True, False, False]])
    found = Taught(teacher_NLC, 1.0, 1.0).more_loss(step(torch.tensor([0]), keep_BL), outputs_BLC)
    assert float(found) == pytest.approx(by_hand(np.array([1.0, 2.0]), np.array([0.5, 0.1]), 1.0), rel=1e-5)


def test_labels_have_the_other_share():
    assert float(Taught(np.zeros((1, 2)), 0.25, 1.0).on_loss(torch.tensor(2.0), None, None)) == 1.5


def test_a_batch_that_hides_its_rows_is_refused():
    with pytest.raises(Refused, match="hides which rows a batch holds"):
        Taught(np.zeros((1, 2)), 0.5, 1.0).more_loss(step(None, torch.ones(1, 1) > 0), torch.zeros(1, 2))
