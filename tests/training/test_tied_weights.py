"""Where one weight has two names, as T5's table of words has, a trial goes on and judges as any other does."""

from dataclasses import replace

import numpy as np
import originals
import pytest
import torch
from tiny_texts import assignment, kept
from torch import nn

from deepmine_auto.contracts import Mixed
from deepmine_auto.host import the_host
from deepmine_auto.messages import Beat, Reported
from deepmine_auto.training.batching import Columns
from deepmine_auto.training.loop import Training
from deepmine_auto.training.outputs import outputs_of

JUDGED = ["ema", "weight_average", "checkpoint_soup"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return kept(tmp_path_factory.mktemp("study") / "study")


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    return originals.t5(tmp_path_factory.mktemp("model") / "t5")


def work(folder, t5, number, *techniques):
    params = {
        "model/kind": "pretrained", "model/pretrained/origin": str(t5), "model/pretrained/dropout": 0.1,
        "tuning/kind": "full", "data/tokens": "subword", "training/epochs": 2,
        **{f"technique/{each}/use": True for each in techniques},
    }  # fmt: skip
    return assignment(folder, number=number, params=params)


def run(asked):
    return [each for each in Training(asked, the_host()).messages() if not isinstance(each, Beat)]


def values(messages):
    return [(each.step, each.value) for each in messages if isinstance(each, Reported)]


@pytest.mark.parametrize(("number", "techniques"), [*enumerate([[], *([each] for each in JUDGED)])])
def test_a_trial_goes_on_from_its_checkpoint_bit_for_bit(folder, t5, number, techniques, monkeypatch):
    monkeypatch.setattr(Training, "_due", lambda self: True)
    asked = work(folder, t5, number, *techniques)
    whole = run(asked)
    rest = run(replace(asked, attempt=2, checkpoints=(whole[3].checkpoint,)))
    assert values(rest) == values(whole[4:])
    assert len(values(rest)) > 2


@pytest.mark.parametrize(("number", "technique"), [*enumerate(JUDGED, 10)])
def test_what_is_judged_is_what_a_model_says_that_takes_the_weights_over(folder, t5, number, technique):
    training = Training(work(folder, t5, number, technique), the_host())
    assert [*training.messages()]
    judged = {name: each.clone() for name, each in training.evaluated().items()}
    found = outputs_of(training.model, judged, training.validation, training.device)
    original = training.model.backbone.model
    assert original.encoder.embed_tokens.weight is original.shared.weight, "and it has its own again"
    training.model.load_state_dict(judged)
    np.testing.assert_allclose(
        outputs_of(training.model, None, training.validation, training.device), found, rtol=1e-5, atol=1e-6
    )


class Tied(nn.Module):
    """Two tables of one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Embedding(9, 4), nn.Embedding(9, 4)
        self.second.weight = self.first.weight

    def forward(self, tokens_BL, keep_BL):
        return Mixed((self.first(tokens_BL) + self.second(tokens_BL)).sum(1))


class Twice(Tied):
    """One table in two places."""

    def __init__(self):
        super().__init__()
        self.second = self.first


@pytest.mark.parametrize("kind", [Tied, Twice])
def test_other_weights_stand_at_all_places_of_a_tied_one_and_then_its_own_again(kind):
    model, rows = kind(), Columns.of([[3], [5], [3]])
    own = model.first.weight
    others = {name: each + 1.0 for name, each in model.state_dict().items()}
    found = outputs_of(model, others, rows, CPU)
    np.testing.assert_allclose(found, 2 * (own.detach() + 1.0)[[3, 5, 3]].numpy(), rtol=1e-6)
    assert model.first.weight is own
    assert model.second.weight is own
