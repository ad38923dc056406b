"""A probe is a batch that every model can read, those too that take rows apart into source and target."""

import pytest
import tiny
import torch
from torch import nn

import deepmine_auto
from deepmine_auto import Source
from deepmine_auto.bundle.probe import MOST_NUMBERS, probe, same, separator_for
from deepmine_auto.bundle.save import Exported, save
from deepmine_auto.contracts import Mixed
from deepmine_auto.host import the_host
from deepmine_auto.model.assemble import build_model
from deepmine_auto.training.batching import Columns
from deepmine_auto.training.outputs import outputs_of
from deepmine_plugins.tasks.reversal import Reversal

APART = ["encoder_decoder", "lstm"]


def built(kind):
    """A model of reversal on this backbone, what the task prepared for it, and its params."""
    task = Reversal(count=200)
    prepared = task.prepare(task.read(Source()))
    params = {
        "attention/kind": "multi_head",
        "model/kind": kind,
        "model/depth": 1,
        "model/dim": 32,
        "model/heads": 2,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_model(params, task, prepared, the_host()), prepared, params


class Echo(nn.Module):
    """Says which tokens it was asked about."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, tokens_BL, keep_BL):
        assert torch.equal(tokens_BL > 0, keep_BL)
        return Mixed(tokens_BL.float())


@pytest.mark.parametrize(
    ("separator", "rows"),
    [
        (None, [[4, 13, 8, 3, 12, 7, 2, 11], [6, 1, 10, 5, 14, 0, 0, 0]]),
        (14, [[4, 13, 14, 3, 12, 7, 2, 11], [6, 1, 14, 5, 1, 0, 0, 0]]),
        (4, [[5, 13, 4, 3, 12, 7, 2, 11], [6, 1, 4, 5, 14, 0, 0, 0]]),
    ],
)
def test_each_row_has_two_tokens_before_the_only_separator_and_is_else_what_it_always_was(separator, rows):
    """Other tokens would make strangers of all bundles that there are."""
    assert probe(Echo(), 15, separator) == [float(each) for row in rows for each in row]


@pytest.mark.parametrize(("kind", "apart"), [("encoder_decoder", True), ("lstm", True), ("decoder", False)])
def test_a_separator_is_for_backbones_that_take_rows_apart(kind, apart):
    _, prepared, params = built(kind)
    assert separator_for(params, prepared, the_host()) == (prepared.separator if apart else None)


@pytest.mark.parametrize("kind", APART)
def test_what_a_model_says_of_the_target_is_in_its_probe(kind):
    model, prepared, _ = built(kind)
    before = probe(model, prepared.vocabulary, prepared.separator)
    assert len(before) == MOST_NUMBERS
    with torch.no_grad():
        model.head.to_answers.weight.mul_(2.0)
    assert not same(probe(model, prepared.vocabulary, prepared.separator), before)


@pytest.mark.parametrize("kind", APART)
def test_a_model_that_takes_rows_apart_is_exported_and_answers_when_it_is_loaded(tmp_path, kind):
    model, prepared, params = built(kind)
    inputs = ["s1 s2 s3 |", "s4 s5 | s5"]
    outputs = outputs_of(model, None, Columns.of(prepared.encode(inputs)), torch.device("cpu"))
    story = tiny.story(task="reversal", params=params)
    save(tmp_path / "bundle", Exported(model.state_dict(), prepared, params, story), inputs, outputs)
    answers = deepmine_auto.load(tmp_path / "bundle").predict(inputs)
    assert [len(each["answers"]) for each in answers] == [4, 4]
