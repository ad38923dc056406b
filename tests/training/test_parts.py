"""A batch that is worked off in parts moves the weights as if it had fitted into memory.

Shapes: B batch, L length, C classes.
"""

import pytest
import torch
from alike import CERTAIN, SGD, add_extra_losses, assert_alike, curve, judged_at_once, kept_bytes, last_weights
from tiny_texts import TECHNIQUES, assignment, kept
from torch import nn

from deepmine_auto.classification import TextClassification
from deepmine_auto.contracts import Mixed
from deepmine_auto.host import the_host
from deepmine_auto.training.loop import Training
from deepmine_auto.training.outputs import EVALUATION_ROWS
from deepmine_auto.training.parts import InParts

ODD = {"training/batch": 3, "training/epochs": 1}
"""64 rows in batches of 3 and of 2: parts are uneven, and there are batches of fewer rows than parts."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return kept(tmp_path_factory.mktemp("study") / "study")


@pytest.fixture(autouse=True)
def always_written(monkeypatch):
    monkeypatch.setattr(Training, "_due", lambda self: True)


def test_the_rows_are_as_odd_as_these_tests_say(folder):
    training = Training(assignment(folder, number=90, params=ODD), the_host())
    assert sorted(len(next(training.batches)) for _ in range(22)) == [2] * 2 + [3] * 20


def in_parts(folder, number, **params):
    """The messages of a trial with 0, 1 and 2 halvings of its batches."""
    everything = {**CERTAIN, **SGD, **ODD, **params}
    return [
        list(
            Training(assignment(folder, number=number + each, halvings=each, params=everything), the_host()).messages()
        )
        for each in (0, 1, 2)
    ]


VARIANTS = {
    "plain": {},
    "class_weights": {"data/class_weights": True},
    "techniques": TECHNIQUES,
    "adamw": {"optimizer/kind": "adamw"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_losses_and_weights_are_those_of_the_whole_batch(folder, monkeypatch, name):
    add_extra_losses(monkeypatch)
    whole, *parted = in_parts(folder, 10 * list(VARIANTS).index(name), **VARIANTS[name])
    assert len(curve(whole)) == 5
    for each in parted:
        assert curve(each) == [(step, pytest.approx(value, abs=1e-5)) for step, value in curve(whole)]
        if name != "adamw":
            assert_alike(last_weights(each, folder), last_weights(whole, folder))


def test_the_loss_may_be_anything_that_looks_at_the_whole_batch(folder, monkeypatch):
    """One that compares rows with each other is no mean over parts in any weighting."""

    def spread(self, outputs, targets, prepared):
        return nn.functional.cross_entropy(outputs, targets) + torch.cdist(outputs, outputs).square().mean()

    monkeypatch.setattr(TextClassification, "loss", spread)
    whole, *parted = in_parts(folder, 50)
    for each in parted:
        assert_alike(last_weights(each, folder), last_weights(whole, folder))


def test_dropout_is_drawn_once_a_row_however_often_it_is_computed(folder):
    """Computed again for the gradient, a part has the masks that it had; else the gradient would be another one's."""
    torch.manual_seed(1)
    model = InParts(Doubled(), 2)
    x_BL = torch.ones(6, 50)
    mixed = model(x_BL, x_BL > 0)
    mixed.out.sum().backward()
    torch.testing.assert_close(model.model.weight.grad, mixed.out.sum().detach())


class Doubled(nn.Module):
    """Its gradient is its output, if both have the same masks."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.seen = []

    def forward(self, tokens_BL, keep_BL):
        self.seen.append(len(tokens_BL))
        return Mixed(nn.functional.dropout(tokens_BL, 0.5) * self.weight)


@pytest.mark.parametrize(("rows", "parts", "sizes"), [(21, 4, [6, 5, 5, 5]), (3, 4, [1, 1, 1]), (8, 1, [8])])
def test_no_part_is_larger_than_it_must_be(rows, parts, sizes):
    model = InParts(Doubled(), parts)
    x_BL = torch.ones(rows, 2)
    model(x_BL, x_BL > 0)
    assert model.model.seen == sizes


def test_the_activations_of_the_parts_are_not_kept(folder):
    def training_of(halvings):
        work = assignment(folder, number=60, halvings=halvings, params={"training/batch": 64, "model/depth": 2})
        return Training(work, the_host())

    assert kept_bytes(training_of(2)) < kept_bytes(training_of(0)) / 10


def test_evaluations_shrink_with_the_batch(folder, monkeypatch):
    works = (assignment(folder, number=61, halvings=each) for each in (0, 1, 3, 20))
    seen = [judged_at_once(Training(each, the_host()), monkeypatch) for each in works]
    assert seen == [EVALUATION_ROWS, EVALUATION_ROWS // 2, EVALUATION_ROWS // 8, 1]
