"""Of a pretrained model's word vectors those learn whose tokens are in the training rows, and nobody else can tell."""

from dataclasses import replace

import numpy as np
import originals
import pytest
import torch
from begun import begun
from tiny_texts import assignment, kept, rows
from torch import nn

import deepmine_auto
from deepmine_auto import word_rows, word_weights
from deepmine_auto.host import the_host
from deepmine_auto.messages import Beat, Reported
from deepmine_auto.pretrained import seen
from deepmine_auto.pretrained.merging import merge
from deepmine_auto.pretrained.seen import SeenWords, leave_unseen
from deepmine_auto.training import checkpoint, loop
from deepmine_auto.training.batching import Columns
from deepmine_auto.training.loop import Training
from deepmine_auto.training.measure import params_million

VOCABULARY = 100  # of which the texts have 35, and the tokenizer knows no more


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return kept(tmp_path_factory.mktemp("study") / "study")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return originals.bert(tmp_path_factory.mktemp("model") / "bert", vocab_size=VOCABULARY)


def work(folder, model, number, **changed):
    params = {
        "model/kind": "pretrained", "model/pretrained/origin": str(model), "model/pretrained/dropout": 0.1,
        "tuning/kind": "full", "data/tokens": "subword", "training/epochs": 2, "optimizer/adamw/lr": 3e-3, **changed,
    }  # fmt: skip
    return assignment(folder, number=number, params=params)


def training_of(*args, **changed):
    return Training(work(*args, **changed), the_host())


def run(asked):
    return [each for each in Training(asked, the_host()).messages() if not isinstance(each, Beat)]


def values(messages):
    return [(each.step, each.value) for each in messages if isinstance(each, Reported)]


def words_of(training):
    return training.model.backbone.model.get_input_embeddings()


@pytest.fixture
def whole_tables(monkeypatch):
    """What lets every table stay whole from now on."""
    return lambda: monkeypatch.setattr(loop, "leave_unseen", lambda *_: None)


# -- the table ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def table():
    torch.manual_seed(3)
    return nn.Embedding(10, 4, padding_idx=0)


def some_of(table, *tokens):
    seen_V = torch.zeros(table.num_embeddings, dtype=torch.bool)
    seen_V[list(tokens)] = True
    return SeenWords(table, seen_V)


def test_it_looks_up_what_the_whole_table_does(table):
    tokens = torch.arange(10).reshape(2, 5)
    assert torch.equal(some_of(table, 2, 3, 7)(tokens), table(tokens))


def test_the_seen_get_the_gradients_that_they_had_and_the_others_none(table):
    words, tokens = some_of(table, 2, 3, 7), torch.tensor([[2, 7, 7, 9, 0]])
    way = torch.randn(1, 5, 4)
    (table(tokens) * way).sum().backward()
    (words(tokens) * way).sum().backward()
    torch.testing.assert_close(words.weight.grad, table.weight.grad[[2, 3, 7]])
    assert words.rest.grad is None


def test_merged_it_is_the_whole_table_again_with_what_was_learned(table):
    words, before = some_of(table, 2, 3, 7), table.weight.detach().clone()
    with torch.no_grad():
        words.weight += 1.0
    model = nn.Sequential(words)
    assert merge(model)
    assert type(model[0]) is nn.Embedding
    assert (model[0].padding_idx, model[0].weight.requires_grad) == (0, True)
    learned = torch.zeros(10, 1)
    learned[[2, 3, 7]] = 1.0
    assert torch.equal(model[0].weight.detach(), before + learned)


def test_techniques_find_its_rows_by_their_tokens(table):
    model = nn.ModuleDict({"table": some_of(table, 2, 3, 7), "out": nn.Linear(4, 2)})
    assert word_weights(model, 10) is model["table"].weight
    assert word_rows(model, 10, torch.tensor([0, 2, 5, 7])).tolist() == [0, 2]


# -- which tables ------------------------------------------------------------------------------------------------------


def test_what_learns_is_what_the_training_rows_have_and_the_unknown_but_no_padding(folder, bert):
    training = training_of(folder, bert, 0)
    learns = set(words_of(training).seen_V.nonzero()[:, 0].tolist())
    assert learns == {*training.train.tokens.tolist(), training.prepared.unknown} - {0}
    moved = {len(each) for group in training.optimizer.param_groups for each in group["params"]}
    assert len(learns) in moved
    assert VOCABULARY not in moved


def test_a_model_counts_all_its_parameters(folder, bert, whole_tables):
    some = params_million(training_of(folder, bert, 0).model)
    whole_tables()
    assert params_million(training_of(folder, bert, 0).model) == some


@pytest.mark.parametrize("tuning", ["top_layers", "lora", "bitfit"])
def test_a_table_that_is_frozen_stays_whole(folder, bert, tuning):
    assert type(words_of(training_of(folder, bert, 1, **{"tuning/kind": tuning}))) is nn.Embedding


def test_a_table_of_which_most_is_seen_stays_whole(folder, tmp_path):
    assert type(words_of(training_of(folder, originals.bert(tmp_path / "bert"), 2))) is nn.Embedding


@pytest.mark.parametrize("kind", [originals.roberta, originals.distilbert, originals.t5, originals.llama])
def test_every_architecture_says_what_it_said(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(seen, "MOST", 1.0)
    original = kind(tmp_path / "model")
    stack = stack_of(original)
    columns = Columns.of([[4, 5, 6], [2, 9]], np.zeros(2, np.int64))
    batch = columns.batch([0, 1])
    with torch.no_grad():
        before = stack.eval()(batch.tokens_BL, batch.keep_BL).out
        state = torch.get_rng_state()
        leave_unseen(stack, [columns], None)
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(stack(batch.tokens_BL, batch.keep_BL).out, before)
    assert isinstance(stack.model.get_input_embeddings(), SeenWords) == (kind is not originals.t5)


def stack_of(original):
    return begun(original, **{"tuning/kind": "full"})[1].backbone


class Scaled(nn.Embedding):
    """A table that does more than look up."""

    def forward(self, tokens):
        return 2.0 * super().forward(tokens)


def test_a_table_that_does_more_than_look_up_stays_whole(bert):
    stack = stack_of(bert)
    embeddings = stack.model.embeddings
    embeddings.word_embeddings = Scaled(VOCABULARY, 16, _weight=embeddings.word_embeddings.weight)
    leave_unseen(stack, [Columns.of([[4, 5]], np.zeros(1, np.int64))], None)
    assert type(embeddings.word_embeddings) is Scaled


def test_a_table_whose_weights_the_model_reads_by_itself_stays_whole(bert, monkeypatch):
    stack = stack_of(bert)
    embeddings = stack.model.embeddings
    forward = embeddings.forward
    monkeypatch.setattr(
        embeddings, "forward", lambda **given: forward(**given) + embeddings.word_embeddings.weight.sum()
    )
    leave_unseen(stack, [Columns.of([[4, 5]], np.zeros(1, np.int64))], None)
    assert type(embeddings.word_embeddings) is nn.Embedding


def test_another_backbone_is_left_alone():
    model = nn.ModuleDict({"table": nn.Embedding(9, 2)})
    leave_unseen(model, [], None)
    assert type(model["table"]) is nn.Embedding


# -- in a trial --------------------------------------------------------------------------------------------------------


def test_a_trial_learns_what_it_would_have_learned_without(folder, bert, whole_tables):
    changed = {"optimizer/adamw/weight_decay": 0.0}
    some = values(run(work(folder, bert, 10, **changed)))
    whole_tables()
    for one, other in zip(some, values(run(work(folder, bert, 11, **changed))), strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_interrupted_after_any_report_it_goes_on_bit_for_bit(folder, bert, monkeypatch):
    monkeypatch.setattr(Training, "_due", lambda self: True)
    asked = work(folder, bert, 12)
    told = [each for each in run(asked) if isinstance(each, Reported)]
    last = checkpoint.load(folder / told[-1].checkpoint)[0]
    again = run(replace(asked, attempt=2, checkpoints=(told[0].checkpoint,)))
    assert values(again) == values(told)[1:]
    (newest,) = [each.checkpoint for each in again if isinstance(each, Reported)][-1:]
    tensors = checkpoint.load(folder / newest)[0]
    assert all(torch.equal(each, tensors[name]) for name, each in last.items())


@pytest.mark.parametrize("technique", ["fgm", "vat", "ema", "denoising", "layer_decay", "checkpoint_soup"])
def test_techniques_work_on_it_as_on_the_whole(folder, bert, technique, whole_tables):
    changed = {f"technique/{technique}/use": True, "optimizer/adamw/weight_decay": 0.0, "model/pretrained/dropout": 0.0}
    some = values(run(work(folder, bert, 13, **changed)))
    whole_tables()
    for one, other in zip(some, values(run(work(folder, bert, 14, **changed))), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


SPACE = """
[plugins]
attention = ["multi_head"]
backbone = ["pretrained"]
tuning = ["full"]
optimizer = ["adamw"]
technique = ["ema"]

[ranges]
"training/epochs" = 2
"training/batch" = 16
"""


def test_a_bundle_has_the_whole_table_of_which_the_unseen_are_what_they_were(tmp_path, bert):
    made = rows()
    lines = [f'"{text}",{label}' for text, label in zip(made.inputs, made.labels, strict=True)]
    (tmp_path / "moods.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    (tmp_path / "space.toml").write_text(SPACE)
    result = deepmine_auto.search(
        task="text_classification", data=str(tmp_path / "moods.csv"), backbone=str(bert), trials=1,
        space=str(tmp_path / "space.toml"), executor="inline", storage=str(tmp_path / "s.db"),
    )  # fmt: skip
    bundle = deepmine_auto.load(result.bundle)
    learned = bundle.model.backbone.model.get_input_embeddings().weight.detach()
    before = originals.weights(bert)["embeddings.word_embeddings.weight"]
    moved = (learned != before).any(1)
    assert learned.shape == before.shape
    assert moved[4:30].any()
    assert not moved[len(originals.WORDS) :].any()
