"""Texts that stand side by side in a row learn what they learn alone."""

import numpy as np
import originals
import pytest
import torch
from begun import begun
from hypothesis import given
from hypothesis import strategies as st
from tiny_texts import assignment, kept

from deepmine_auto.host import the_host
from deepmine_auto.pretrained.memory import forgotten, remember
from deepmine_auto.pretrained.packing import Packing, pack, side_by_side
from deepmine_auto.pretrained.parts import blocks_of
from deepmine_auto.training.batching import Columns
from deepmine_auto.training.loop import Training
from deepmine_auto.training.parts import InParts

TEXTS = ["good day", "the cold road of my house", "tea", "a kind book", "my kind house of tea", "bad road"]
KINDS = {
    "bert": originals.bert, "roberta": originals.roberta, "distilbert": originals.distilbert,
    "albert": originals.albert, "t5": originals.t5, "llama": originals.llama,
}  # fmt: skip


def modern_bert(folder, window=4):
    """A ModernBERT, of which some layers look at a few words alone, half of them to each side."""
    from transformers import ModernBertConfig, ModernBertModel

    sizes = {"max_position_embeddings": 64, "local_attention": window, **originals.SIZES}
    config = ModernBertConfig(vocab_size=len(originals.WORDS), pad_token_id=0, **sizes)
    return originals._saved(folder, ModernBertModel, config, originals.word_pieces())


def packing(folder, texts=TEXTS, **changed):
    """A model in training that packs if it can, without dropout, and the columns of some texts."""
    prepared, model = begun(folder, **{"tuning/kind": "full", **changed})
    columns = Columns.of(prepared.encode(texts))
    pack(model.backbone, columns)
    return model.train(), columns


def learned(model, batch):
    """What a model says of each token, and the gradients that this has."""
    model.zero_grad()
    out_ND = model.backbone(batch.tokens_BL, batch.keep_BL).out[batch.keep_BL]
    out_ND.square().sum().backward()
    gradients = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    return out_ND.detach(), gradients


def rows_read(model):
    """A list to which a model adds the number of rows that it reads, and whether it trains meanwhile."""
    read = []
    model.backbone.model.register_forward_pre_hook(
        lambda own, _args, told: read.append((len(told["input_ids"]), own.training)), with_kwargs=True
    )
    return read


@pytest.mark.parametrize("kind", KINDS)
def test_packed_texts_say_and_teach_what_they_do_alone(tmp_path, kind):
    model, columns = packing(KINDS[kind](tmp_path / kind))
    batch, read = columns.batch(range(len(columns))), rows_read(model)
    packed_ND, taught = learned(model, batch)
    model.backbone.packing = None
    alone_ND, expected = learned(model, batch)
    assert read[0] < read[1] == (len(TEXTS), True), "fewer rows are read"
    torch.testing.assert_close(packed_ND, alone_ND)
    assert taught.keys() == expected.keys()
    for name, each in expected.items():
        torch.testing.assert_close(taught[name], each, rtol=1e-4, atol=1e-5, msg=name)


def test_packed_texts_are_those_alone_in_bfloat16_too_but_for_its_rounding(tmp_path):
    model, columns = packing(originals.bert(tmp_path / "bert"))
    batch = columns.batch(range(len(columns)))
    with torch.autocast("cpu", torch.bfloat16):
        packed_ND, taught = learned(model, batch)
    model.backbone.packing = None
    alone_ND, expected = learned(model, batch)
    torch.testing.assert_close(packed_ND.float(), alone_ND, rtol=0.05, atol=0.05)
    for name, each in expected.items():
        torch.testing.assert_close(taught[name], each, rtol=0.1, atol=0.1 * float(each.abs().max()) + 1e-3, msg=name)


def test_each_part_of_a_batch_is_packed_by_itself(tmp_path):
    model, columns = packing(originals.bert(tmp_path / "bert"))
    batch, read, in_parts = columns.batch(range(len(columns))), rows_read(model), InParts(model.backbone, 2)

    def taught():
        model.zero_grad()
        out = in_parts(batch.tokens_BL, batch.keep_BL).out[batch.keep_BL]
        out.square().sum().backward()
        return out.detach(), {name: each.grad.clone() for name, each in model.backbone.named_parameters()}

    packed, gradients = taught()
    assert [count for count, _ in read][:2] == [2, 3], "of the other three texts no two have room in a row"
    model.backbone.packing = None
    alone, expected = taught()
    torch.testing.assert_close(packed, alone)
    for name, each in expected.items():
        torch.testing.assert_close(gradients[name], each, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", ["bert", "roberta", "llama"])
def test_what_is_remembered_of_texts_is_packed_with_them(tmp_path, kind):
    tuned = {"tuning/kind": "top_layers", "tuning/top_layers/layers": 1, "model/pretrained/dropout": 0.1}
    model, columns = packing(KINDS[kind](tmp_path / kind), **tuned)
    for each in model.modules():
        if isinstance(each, torch.nn.Dropout):
            each.p = 0.0  # the top's too: it is compared
    remember(model.backbone, tmp_path, [columns])
    batch, read, computed = columns.batch(range(len(columns))), rows_read(model), []
    for block in blocks_of(model.backbone):
        linears = [each for each in block.modules() if isinstance(each, torch.nn.Linear)]
        linears[0].register_forward_hook(lambda own, *_: computed.append(own))
    packed_ND, taught = learned(model, batch)
    assert len(computed) == 1, "two blocks are remembered"
    with forgotten(model):
        model.backbone.packing = None
        alone_ND, expected = learned(model, batch)
    assert read[0] < read[1] == (len(TEXTS), True)
    torch.testing.assert_close(packed_ND, alone_ND, rtol=1e-4, atol=1e-5)
    assert taught.keys() == expected.keys()
    for name, each in expected.items():
        torch.testing.assert_close(taught[name], each, rtol=1e-4, atol=1e-5, msg=name)


def test_only_what_trains_packs(tmp_path):
    model, columns = packing(originals.bert(tmp_path / "bert"))
    batch, read = columns.batch(range(len(columns))), rows_read(model)
    with torch.no_grad():
        model.eval()(batch.tokens_BL, batch.keep_BL)
    assert read == [(len(TEXTS), False)]


@pytest.mark.parametrize("kind", [modern_bert, originals.deberta, originals.xlm])
def test_a_model_that_would_say_something_else_reads_texts_alone(tmp_path, kind):
    model, columns = packing(kind(tmp_path / "model"))
    batch, read = columns.batch(range(len(columns))), rows_read(model)
    assert learned(model, batch)[0].isfinite().all()
    assert read == [(len(TEXTS), True)]


def test_a_window_that_no_text_reaches_beyond_does_not_matter(tmp_path):
    model, _ = packing(modern_bert(tmp_path / "model", window=64))
    assert model.backbone.packing is not None


@pytest.mark.parametrize(
    "changed",
    [
        {"attention/kind": "sliding_window", "attention/sliding_window/window": 64},
        {"tuning/kind": "prefix"},
        {"tuning/kind": "prompt"},
        {"model/pretrained/packing": False},
    ],
)
def test_what_stands_in_a_model_or_before_the_words_and_who_does_not_want_it_keeps_texts_apart(tmp_path, changed):
    model, columns = packing(originals.bert(tmp_path / "bert"), **changed)
    assert model.backbone.packing is None
    assert learned(model, columns.batch(range(len(columns))))[0].isfinite().all()


@pytest.mark.parametrize("texts", [["tea"], ["good day", "bad tea"], ["good day", "bad tea", "my house"]])
def test_texts_of_which_no_two_have_room_in_a_row_are_read_alone(tmp_path, texts):
    model, columns = packing(originals.bert(tmp_path / "bert"), texts)
    assert model.backbone.packing is None
    assert len(learned(model, columns.batch(range(len(columns))))[0]) == columns.lengths.sum()


def test_a_batch_that_saves_no_row_is_read_as_it_is(tmp_path):
    model, columns = packing(originals.bert(tmp_path / "bert"))
    masks = []
    model.backbone.model.register_forward_pre_hook(
        lambda _own, _args, told: masks.append(told["attention_mask"].ndim), with_kwargs=True
    )
    assert model.backbone.packing is not None
    learned(model, columns.batch([1, 4]))
    assert masks == [2]


def test_a_text_that_is_longer_than_any_that_was_tried_out_is_read_alone(tmp_path):
    model, _ = packing(modern_bert(tmp_path / "model", window=24))
    assert model.backbone.packing.longest == 8
    longer = Columns.of([[5] * 30, [6] * 5, [7] * 6])
    batch, read = longer.batch(range(3)), rows_read(model)
    assert learned(model, batch)[0].isfinite().all()
    assert read == [(3, True)]


def test_memory_that_is_too_small_is_no_reason_to_keep_texts_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(Packing, "read", out_of_memory)
    with pytest.raises(torch.OutOfMemoryError, match="too small"):
        packing(originals.bert(tmp_path / "bert"))


def out_of_memory(*_):
    raise torch.OutOfMemoryError("CUDA out of memory: it is too small")


@pytest.mark.parametrize(("most", "remembers"), [(0, True), (10, False), (64, True)])
def test_who_reads_a_part_of_the_rows_remembers_nothing(tmp_path, most, remembers):
    params = {
        "model/kind": "pretrained", "model/pretrained/origin": str(originals.bert(tmp_path / "bert")),
        "model/pretrained/dropout": 0.1, "tuning/kind": "top_layers", "tuning/top_layers/layers": 1,
        "data/tokens": "subword", "training/rows": most,
    }  # fmt: skip
    training = Training(assignment(kept(tmp_path / "study"), number=0, params=params), the_host())
    assert (training.model.backbone.memory is not None) == remembers


def test_holes_of_a_text_take_no_place(tmp_path):
    model, columns = packing(originals.bert(tmp_path / "bert"))
    batch = columns.batch(range(len(columns)))
    batch.keep_BL[1, 2:4] = False
    packed_ND, _ = learned(model, batch)
    model.backbone.packing = None
    torch.testing.assert_close(packed_ND, learned(model, batch)[0])


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(0, 20))
def test_every_text_has_a_place_of_its_own_within_one_row(lengths, more):
    width = max(lengths) + more
    begin, count = side_by_side(lengths, width)
    taken = np.zeros(count * width, bool)
    for first, length in zip(begin, lengths, strict=True):
        assert first // width == (first + length - 1) // width, "within one row"
        assert not taken[first : first + length].any()
        taken[first : first + length] = True
    used = taken.reshape(count, width).sum(1)
    assert used.all(), "no row is empty"
    assert (used * 2 > width).sum() >= count - 1, "two rows that are half empty would be one"


@pytest.mark.parametrize("packs", [True, False])
def test_a_trial_packs_unless_it_is_told_not_to(tmp_path, packs):
    params = {
        "model/kind": "pretrained", "model/pretrained/origin": str(originals.bert(tmp_path / "bert")),
        "model/pretrained/dropout": 0.1, "model/pretrained/packing": packs, "tuning/kind": "full",
        "data/tokens": "subword", "training/epochs": 1,
    }  # fmt: skip
    training = Training(assignment(kept(tmp_path / "study"), number=0, params=params), the_host())
    assert list(training.messages())[-1].cause == "budget"
    assert (training.model.backbone.packing is not None) == packs
