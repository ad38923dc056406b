"""What a frozen part says of a text is computed once, and nobody can tell."""

import errno
import os
import time
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import originals
import pytest
import torch
from begun import begun
from safetensors import SafetensorError
from tiny_texts import kept

from deepmine_auto import concluding
from deepmine_auto.data.kept import SEARCH, rows_of
from deepmine_auto.host import the_host
from deepmine_auto.messages import Assignment, Beat, Reported
from deepmine_auto.pretrained import memory
from deepmine_auto.pretrained.memory import forgotten, frozen_blocks, remember
from deepmine_auto.training.batching import Columns
from deepmine_auto.training.loop import Training

TEXTS = ["good day", "the cold road of my house", "tea", "a kind book"]


def mpnet(folder):
    """Its blocks say tuples of one, and its encoder computes the bias of positions for all of them."""
    from transformers import MPNetConfig, MPNetModel

    tokenizer = originals.byte_pairs()
    config = MPNetConfig(vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=66, **originals.SIZES)
    return originals._saved(folder, MPNetModel, config, tokenizer)


def flaubert(folder):
    """Its lists are those of XLM."""
    from transformers import FlaubertConfig, FlaubertModel

    config = FlaubertConfig(vocab_size=len(originals.WORDS), **originals.LISTED)
    return originals._saved(folder, FlaubertModel, config, originals.word_pieces())


KINDS = {
    "bert": originals.bert, "roberta": originals.roberta, "llama": originals.llama, "mpnet": mpnet,
    "deberta": originals.deberta,
}  # fmt: skip


def params_of(folder, layers, **changed):
    return {
        "attention/kind": "multi_head", "model/kind": "pretrained", "model/pretrained/origin": str(folder),
        "model/pretrained/dropout": 0.1, "tuning/kind": "top_layers", "tuning/top_layers/layers": layers, **changed,
    }  # fmt: skip


def remembering(folder, place, layers=1, **changed):
    """A model that remembers the texts, and the batch of all of them."""
    prepared, model = begun(folder, **params_of(folder, layers, **changed))
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


@pytest.mark.parametrize("kind", ["bert", "mpnet"])
def test_gradients_of_the_top_are_those_of_the_whole_computation(tmp_path, kind):
    model, batch = remembering(KINDS[kind](tmp_path / kind), tmp_path)

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


def test_what_is_drawn_for_the_top_is_remembered_together(tmp_path):
    bert = originals.bert(tmp_path / "bert")
    for seed, kind, rank in ((0, "lora", 8), (1, "lora", 4), (2, "adalora", 8), (2, "adalora", 4), (3, "houlsby", 8)):
        torch.manual_seed(seed)
        tuned = {"tuning/kind": kind, f"tuning/{kind}/top": 0.5, f"tuning/{kind}/rank": rank}
        model, _ = remembering(bert, tmp_path, **tuned, **{"model/pretrained/dropout": 0.0})
        assert model.backbone.memory is not None
    remembering(bert, tmp_path, 2)
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


def rates(model):
    """At what rate each part drops out, by name."""
    return {name: each.p for name, each in model.backbone.model.named_modules() if isinstance(each, torch.nn.Dropout)}


@pytest.mark.parametrize("kind", ["lora", "dora", "rslora", "adalora", "vera", "ia3", "pfeiffer", "houlsby", "prefix"])
def test_what_is_remembered_drops_out_nothing_and_what_learns_does(tmp_path, kind):
    tuned = {"tuning/kind": kind, f"tuning/{kind}/top": 0.5}
    model, _ = remembering(originals.bert(tmp_path / "bert"), tmp_path, **tuned)
    assert model.backbone.memory is not None
    own = {name: rate for name, rate in rates(model).items() if name.endswith("output.dropout") or "embed" in name}
    assert {name for name, rate in own.items() if rate == 0.0} == {
        "embeddings.dropout", "encoder.layer.0.attention.output.dropout", "encoder.layer.0.output.dropout"
    }  # fmt: skip
    assert {*own.values()} == {0.0, 0.1}


@pytest.mark.parametrize("kind", [originals.albert, originals.t5, originals.bert])
def test_what_cannot_be_passed_over_drops_out_as_is_asked(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(memory, "_can_be_passed_over", lambda *_: False)
    folder = kind(tmp_path / "model")
    model, _ = remembering(folder, tmp_path)
    assert model.backbone.memory is None
    assert rates(model) == rates(begun(folder, **params_of(folder, 1))[1])
    assert 0.1 in rates(model).values()


@pytest.mark.parametrize("most", ["MOST_BYTES", "MOST_BYTES_OF_ALL"])
def test_what_a_trial_learns_does_not_depend_on_the_room_that_there_is(tmp_path, monkeypatch, most):
    folder = originals.bert(tmp_path / "bert")
    remembered, _ = remembering(folder, tmp_path)
    monkeypatch.setattr(memory, most, 0)
    (tmp_path / "other").mkdir()
    computed, _ = remembering(folder, tmp_path / "other")
    assert remembered.backbone.memory is not None
    assert computed.backbone.memory is None
    assert rates(computed) == rates(remembered)


@pytest.mark.parametrize("kind", [originals.albert, originals.t5])
def test_a_model_whose_blocks_are_asked_again_or_pass_on_more_than_vectors_is_computed(tmp_path, kind):
    model, batch = remembering(kind(tmp_path / "model"), tmp_path, layers=0)
    assert frozen_blocks(model.backbone.model) > 0
    assert model.backbone.memory is None
    assert not [*tmp_path.glob("frozen-*")]
    assert outputs(model, batch).isfinite().all()


@pytest.mark.parametrize("kind", [originals.xlm, flaubert])
@pytest.mark.parametrize("layers", [0, 1])
def test_a_model_that_computes_more_than_what_counts_as_its_blocks_is_computed(tmp_path, kind, layers):
    model, batch = remembering(kind(tmp_path / "model"), tmp_path, layers)
    assert frozen_blocks(model.backbone.model) == 3 - layers
    assert model.backbone.memory is None
    assert not [*tmp_path.glob("frozen-*.safetensors")], "nothing is computed in vain"
    assert outputs(model, batch).isfinite().all()


def opt(folder):
    """It drops out by a function, and no module of it says so."""
    from transformers import OPTConfig, OPTModel

    sizes = {"hidden_size": 16, "word_embed_proj_dim": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = OPTConfig(vocab_size=len(originals.WORDS), ffn_dim=32, max_position_embeddings=64, pad_token_id=0, **sizes)
    return originals._saved(folder, OPTModel, config, originals.word_pieces())


@pytest.mark.parametrize(("dropout", "remembers"), [(0.1, False), (0.0, True)])
def test_a_model_that_drops_out_without_a_module_for_it_is_computed(tmp_path, dropout, remembers):
    drawn = torch.get_rng_state()
    model, batch = remembering(opt(tmp_path / "model"), tmp_path, **{"model/pretrained/dropout": dropout})
    assert (model.backbone.memory is not None) == remembers
    model.eval()
    assert outputs(model, batch).isfinite().all()
    torch.set_rng_state(drawn)


def test_looking_whether_it_drops_out_draws_nothing_from_the_training(tmp_path, monkeypatch):
    before = []
    draws = memory._draws

    def watched(*args):
        before.append(torch.get_rng_state())
        found = draws(*args)
        before.append(torch.get_rng_state())
        return found

    monkeypatch.setattr(memory, "_draws", watched)
    remembering(opt(tmp_path / "model"), tmp_path)
    assert torch.equal(*before)


VECTORS = torch.zeros(1, 2, 16)


class Named(NamedTuple):
    """Who reads it by name cannot read a plain tuple."""

    vectors: torch.Tensor


@pytest.mark.parametrize(
    ("out", "form"),
    [
        (VECTORS, 0), ((VECTORS,), 1), ((VECTORS, None), 2), ((), None), ((None, VECTORS), None),
        ((VECTORS, None, VECTORS), None), (VECTORS[0], None), ([VECTORS], None), (Named(VECTORS), None),
    ],
)  # fmt: skip
def test_a_block_passes_on_vectors_alone_or_first_in_a_tuple_of_nothing_else(out, form):
    assert memory._form(out, 16) == form


def test_looking_how_blocks_are_asked_leaves_the_model_as_it_trains(tmp_path):
    model, _ = remembering(originals.bert(tmp_path / "bert"), tmp_path)
    hooks = [len(each._forward_hooks) for each in model.train().modules()]
    assert memory._forms(model.backbone, 2) == [0, 0]
    assert memory._can_be_passed_over(model.backbone, Columns.of([[2, 5, 3], [2, 6, 7, 3]]))
    assert all(each.training for each in model.modules())
    assert [len(each._forward_hooks) for each in model.modules()] == hooks


def test_what_would_be_too_large_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "MOST_BYTES", 100)
    model, _ = remembering(originals.bert(tmp_path / "bert"), tmp_path)
    assert model.backbone.memory is None


def test_rows_are_computed_in_batches_of_so_many_tokens_with_padding(tmp_path, monkeypatch):
    shapes, lower = [], memory._lower
    monkeypatch.setattr(memory, "_lower", lambda *args: shapes.append((*args[1].shape,)) or lower(*args))
    monkeypatch.setattr(memory, "_draws", lambda *_: False)
    monkeypatch.setattr(memory, "_asked_below", lambda *_: [])
    monkeypatch.setattr(memory, "COMPARED_ROWS", 1)
    monkeypatch.setattr(memory, "TOKENS_AT_ONCE", 10)
    model, batch = remembering(originals.bert(tmp_path / "bert"), tmp_path)
    assert shapes == [(1, 3), (2, 4), (1, 5), (1, 8)]
    with forgotten(model):
        expected = outputs(model, batch)
    torch.testing.assert_close(outputs(model, batch), expected)


# -- on the disk -------------------------------------------------------------------------------------------------------


def files(place):
    """Whole and half-written ones."""
    return [*place.glob("*frozen-*.safetensors*")]


def half_written(place, name, seconds_ago, size=100):
    """A file of another process."""
    file = place / f".frozen-{name}.safetensors.1"
    file.write_bytes(bytes(size))
    touch(file, seconds_ago)
    return file


def touch(file, seconds_ago):
    then = time.time() - seconds_ago
    os.utime(file, (then, then))


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), SafetensorError("full")])
@pytest.mark.parametrize("where", ["save_file", "flush"])
def test_on_a_full_disk_nothing_is_kept_and_the_model_computes(tmp_path, monkeypatch, where, error):
    def fails(*args):
        if where == "save_file":
            args[1].write_bytes(b"half")
        raise error

    monkeypatch.setattr(memory, where, fails)
    model, batch = remembering(originals.bert(tmp_path / "bert"), tmp_path)
    assert model.backbone.memory is None
    assert files(tmp_path) == []
    assert outputs(model, batch).isfinite().all()


@pytest.mark.parametrize(
    "error", [MemoryError("no room"), torch.OutOfMemoryError("no room"), RuntimeError("you can't allocate memory")]
)
def test_where_memory_is_too_small_nothing_is_kept_and_the_model_computes(tmp_path, monkeypatch, error):
    def fails(*_):
        raise error

    monkeypatch.setattr(memory, "_vectors", fails)
    model, batch = remembering(originals.bert(tmp_path / "bert"), tmp_path)
    assert model.backbone.memory is None
    assert files(tmp_path) == []
    assert outputs(model, batch).isfinite().all()


def test_any_other_error_of_the_model_is_told(tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(memory, "_vectors", fails)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        remembering(originals.bert(tmp_path / "bert"), tmp_path)


def test_in_a_folder_that_cannot_be_written_nothing_is_kept_and_the_model_computes(tmp_path):
    model, batch = remembering(originals.bert(tmp_path / "bert"), tmp_path / "away")
    assert model.backbone.memory is None
    assert outputs(model, batch).isfinite().all()


def test_what_is_being_made_has_its_size_at_once_and_whoever_is_interrupted_leaves_nothing(tmp_path, monkeypatch):
    sizes = []

    def interrupted(stack, columns):
        sizes.extend(each.stat().st_size for each in tmp_path.glob(".frozen-*"))
        assert sizes == [4 * 16 * len(columns.tokens)]
        raise KeyboardInterrupt("by hand")

    monkeypatch.setattr(memory, "_vectors", interrupted)
    with pytest.raises(KeyboardInterrupt, match="by hand"):
        remembering(originals.bert(tmp_path / "bert"), tmp_path)
    assert len(sizes) == 1
    assert files(tmp_path) == []


def test_what_would_be_too_much_beside_what_is_kept_is_neither_kept_nor_computed(tmp_path, monkeypatch):
    folder = originals.bert(tmp_path / "bert")
    model, _ = remembering(folder, tmp_path, layers=1)
    (file,) = files(tmp_path)
    needed = file.stat().st_size + 4 * model.backbone.memory.vectors_TD.numel()

    with monkeypatch.context() as patched:
        patched.setattr(memory, "MOST_BYTES_OF_ALL", needed - 1)
        patched.setattr(memory, "_vectors", lambda *_: pytest.fail("computed in vain"))
        assert remembering(folder, tmp_path, layers=2)[0].backbone.memory is None
        assert files(tmp_path) == [file]
        assert remembering(folder, tmp_path, layers=1)[0].backbone.memory is not None, "what is kept is read"

    monkeypatch.setattr(memory, "MOST_BYTES_OF_ALL", needed)
    assert remembering(folder, tmp_path, layers=2)[0].backbone.memory is not None


def test_what_others_are_making_counts_as_kept(tmp_path, monkeypatch):
    other = half_written(tmp_path, "other", seconds_ago=0, size=10_000)
    monkeypatch.setattr(memory, "MOST_BYTES_OF_ALL", 10_000)
    model, _ = remembering(originals.bert(tmp_path / "bert"), tmp_path)
    assert model.backbone.memory is None
    assert files(tmp_path) == [other]


def test_what_killed_processes_left_is_deleted_and_takes_no_room(tmp_path, monkeypatch):
    left = half_written(tmp_path, "left", memory.ABANDONED_SECONDS + 60, size=10_000)
    monkeypatch.setattr(memory, "MOST_BYTES_OF_ALL", 10_000)
    model, _ = remembering(originals.bert(tmp_path / "bert"), tmp_path)
    assert not left.exists()
    assert model.backbone.memory is not None


def test_what_may_be_being_made_stays_and_so_does_what_is_whole(tmp_path):
    folder = originals.bert(tmp_path / "bert")
    remembering(folder, tmp_path, layers=1)
    (whole,) = files(tmp_path)
    touch(whole, memory.ABANDONED_SECONDS + 60)
    made = half_written(tmp_path, "made", memory.ABANDONED_SECONDS - 60)
    remembering(folder, tmp_path, layers=2)
    assert {whole, made} < {*files(tmp_path)}


def test_a_file_that_gets_its_name_while_others_are_counted_is_no_hindrance(tmp_path):
    (tmp_path / ".frozen-renamed.safetensors.1").symlink_to(tmp_path / "not here any more")
    model, _ = remembering(originals.bert(tmp_path / "bert"), tmp_path)
    assert model.backbone.memory is not None


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
