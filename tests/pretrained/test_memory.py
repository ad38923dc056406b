"""What a frozen part says of a text is computed once, and nobody can tell."""

from types import SimpleNamespace

import numpy as np
import originals
import pytest
import torch
from tiny_texts import kept, rows

from deepmine_auto import concluding
from deepmine_auto.data.kept import SEARCH, rows_of
from deepmine_auto.host import the_host
from deepmine_auto.messages import Assignment, Beat, Reported
from deepmine_auto.model.assemble import build_model
from deepmine_auto.pretrained import memory
from deepmine_auto.pretrained.files import original_of
from deepmine_auto.pretrained.memory import forgotten, frozen_blocks, remember
from deepmine_auto.training.batching import Columns
from deepmine_auto.training.loop import Training
from deepmine_plugins.backbones.pretrained import Pretrained
from deepmine_plugins.tasks.text_classification import OwnTexts

KINDS = {"bert": originals.bert, "roberta": originals.roberta, "llama": originals.llama}
TEXTS = ["good day", "the cold road of my house", "tea", "a kind book"]


def params_of(folder, layers, **changed):
    return {
        "attention/kind": "multi_head", "model/kind": "pretrained", "model/pretrained/origin": str(folder),
        "model/pretrained/dropout": 0.1, "tuning/kind": "top_layers", "tuning/top_layers/layers": layers, **changed,
    }  # fmt: skip


def remembering(folder, place, layers=1, **changed):
    """A model that remembers the texts, and the batch of all of them."""
    params, task = params_of(folder, layers, **changed), OwnTexts()
    prepared = task.prepare_for(rows(), original_of(str(folder)))
    model = build_model(params, task, prepared, the_host())
    Pretrained(origin=str(folder)).begin(model.backbone)
    columns = Columns.of(prepared.encode(TEXTS), np.zeros(len(TEXTS), np.int64))
    remember(model.backbone, place, [columns])
    return model.eval(), columns.batch(np.arange(len(TEXTS)))


def outputs(model, batch):
    with torch.no_grad():
        return model.backbone(batch.tokens_BL, batch.keep_BL).out[batch.keep_BL]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [0, 1, 2])
def test_what_is_remembered_equals_what_is_computed(tmp_path, kind, layers):
    model, batch = remembering(KINDS[kind](tmp_path / kind), tmp_path, layers)
    assert model.backbone.memory is not None
    with forgotten(model):
        assert model.backbone.memory is None
        expected = outputs(model, batch)
    torch.testing.assert_close(outputs(model, batch), expected)


def test_the_frozen_blocks_are_not_computed_again(tmp_path):
    model, batch = remembering(originals.bert(tmp_path / "bert"), tmp_path, layers=1)
    counts = []
    for block in model.backbone.model.encoder.layer:
        block.attention.register_forward_hook(lambda *_: counts.append(1))
    outputs(model, batch)
    assert len(counts) == 1
    with forgotten(model):
        outputs(model, batch)
    assert len(counts) == 4


def test_a_text_that_was_changed_is_computed(tmp_path):
    model, batch = remembering(originals.bert(tmp_path / "bert"), tmp_path)
    tokens_BL = batch.tokens_BL.clone()
    tokens_BL[0, 1] = 5
    assert model.backbone.memory.recall(tokens_BL, batch.keep_BL) is None
    changed = batch._replace(tokens_BL=tokens_BL)
    with forgotten(model):
        expected = outputs(model, changed)
    assert torch.equal(outputs(model, changed), expected)


def test_gradients_of_the_top_are_those_of_the_whole_computation(tmp_path):
    model, batch = remembering(originals.bert(tmp_path / "bert"), tmp_path)

    def gradients():
        model.zero_grad()
        model(batch.tokens_BL, batch.keep_BL).out.square().sum().backward()
        return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}

    remembered = gradients()
    with forgotten(model):
        computed = gradients()
    assert remembered.keys() == computed.keys()
    for name, each in computed.items():
        torch.testing.assert_close(remembered[name], each, rtol=1e-4, atol=1e-6)


def test_it_is_made_once_and_read_by_the_next(tmp_path, monkeypatch):
    folder = originals.bert(tmp_path / "bert")
    remembering(folder, tmp_path)
    (file,) = tmp_path.glob("frozen-*.safetensors")
    monkeypatch.setattr(memory, "_vectors", lambda *_: pytest.fail("made again"))
    model, _ = remembering(folder, tmp_path)
    assert model.backbone.memory is not None
    assert [*tmp_path.glob("frozen-*.safetensors")] == [file]


def test_another_frozen_part_is_remembered_apart(tmp_path):
    folder = originals.bert(tmp_path / "bert")
    for layers in (1, 2):
        remembering(folder, tmp_path, layers=layers)
    assert len([*tmp_path.glob("frozen-*.safetensors")]) == 2


def test_what_changes_only_the_top_is_remembered_together(tmp_path):
    folder = originals.bert(tmp_path / "bert")
    for dropout in (0.1, 0.2):
        remembering(folder, tmp_path, **{"model/pretrained/dropout": dropout})
    assert len([*tmp_path.glob("frozen-*.safetensors")]) == 1


@pytest.mark.parametrize("changed", [{"attention/kind": "sliding_window"}, {"attention/learned_temperature/use": True}])
def test_attention_that_was_put_in_is_computed_because_it_may_anneal_or_draw(tmp_path, changed):
    model, _ = remembering(originals.bert(tmp_path / "bert"), tmp_path, **changed)
    assert model.backbone.memory is None


def test_other_weights_are_remembered_apart(tmp_path):
    folder = originals.bert(tmp_path / "bert")
    remembering(folder, tmp_path)
    weights = originals.weights(folder)
    weights["encoder.layer.0.output.dense.bias"] += 1.0
    originals.write_weights(folder, weights)
    remembering(folder, tmp_path)
    assert len([*tmp_path.glob("frozen-*.safetensors")]) == 2


@pytest.mark.parametrize("tuning", ["full", "lora", "houlsby", "prefix", "prompt"])
def test_what_learns_from_the_bottom_remembers_nothing(tmp_path, tuning):
    model, _ = remembering(originals.bert(tmp_path / "bert"), tmp_path, **{"tuning/kind": tuning})
    assert model.backbone.memory is None
    assert not [*tmp_path.glob("frozen-*")]


def test_what_drops_out_counts_as_not_frozen(tmp_path):
    model, _ = remembering(originals.bert(tmp_path / "bert"), tmp_path)
    assert frozen_blocks(model.backbone.model) == 2
    model.backbone.model.encoder.layer[1].output.dropout.p = 0.1
    assert frozen_blocks(model.backbone.model) == 1
    model.backbone.model.embeddings.dropout.p = 0.1
    assert frozen_blocks(model.backbone.model) == 0


def mpnet(folder):
    """Its blocks say tuples, as those of T5 do."""
    from transformers import MPNetConfig, MPNetModel

    tokenizer = originals.byte_pairs()
    config = MPNetConfig(vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=66, **originals.SIZES)
    return originals._saved(folder, MPNetModel, config, tokenizer)


@pytest.mark.parametrize("kind", [originals.albert, mpnet, originals.t5])
def test_a_model_whose_blocks_are_asked_again_or_pass_on_more_than_vectors_is_computed(tmp_path, kind):
    model, batch = remembering(kind(tmp_path / "model"), tmp_path, layers=0)
    assert frozen_blocks(model.backbone.model) > 0
    assert model.backbone.memory is None
    assert not [*tmp_path.glob("frozen-*")]
    assert outputs(model, batch).isfinite().all()


def test_looking_how_blocks_are_asked_leaves_the_model_as_it_trains(tmp_path):
    model, _ = remembering(originals.bert(tmp_path / "bert"), tmp_path)
    hooks = [len(each._forward_hooks) for each in model.train().modules()]
    assert memory._pass_on(model.backbone, 2)
    assert all(each.training for each in model.modules())
    assert [len(each._forward_hooks) for each in model.modules()] == hooks


def test_what_would_be_too_large_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "MOST_BYTES", 100)
    model, _ = remembering(originals.bert(tmp_path / "bert"), tmp_path)
    assert model.backbone.memory is None


# -- in a trial --------------------------------------------------------------------------------------------------------


def work(study, folder, number):
    params = {
        **params_of(folder, 1), "optimizer/kind": "adamw", "schedule/kind": "constant", "training/epochs": 3,
        "training/batch": 16, "data/tokens": "subword",
    }  # fmt: skip
    return Assignment("trial", number, 1, str(study), "text_classification", "log_loss", SEARCH, 11, params)


def run(study, folder, number, forget=False):
    training = Training(work(study, folder, number), the_host())
    assert training.model.backbone.memory is not None
    if forget:
        training.model.backbone.memory = None
    found = [each for each in training.messages() if not isinstance(each, Beat)]
    return [each for each in found if isinstance(each, Reported)]


def test_a_trial_learns_what_it_would_have_learned_without(tmp_path):
    study, folder = kept(tmp_path / "study"), originals.bert(tmp_path / "bert")
    remembered, computed = run(study, folder, 0), run(study, folder, 1, forget=True)
    for one, other in zip(remembered, computed, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-4)


def test_costs_are_those_of_the_whole_model(tmp_path, monkeypatch):
    study, folder = kept(tmp_path / "study"), originals.bert(tmp_path / "bert")
    seen = []
    recall = memory.Memory.recall
    monkeypatch.setattr(memory.Memory, "recall", lambda *args: seen.append(1) or recall(*args))
    from deepmine_auto.training import loop

    costs = loop.costs_of

    def counted(training):
        before = len(seen)
        found = costs(training)
        assert len(seen) == before, "a prediction remembers nothing"
        return found

    monkeypatch.setattr(loop, "costs_of", counted)
    run(study, folder, 2)
    assert seen


def test_an_export_computes_everything_as_its_reload_will(tmp_path, monkeypatch):
    study, folder = kept(tmp_path / "study"), originals.bert(tmp_path / "bert")
    training = Training(work(study, folder, 3), the_host())
    story = SimpleNamespace(params=training.assignment.params)
    monkeypatch.setattr(concluding, "save", lambda *_: 0.0)
    monkeypatch.setattr(memory.Memory, "recall", lambda *_: pytest.fail("an export remembers nothing"))
    concluding.export(tmp_path / "bundle", training, story, rows_of(study, SEARCH, "validation"))
    assert training.model.backbone.memory is not None
