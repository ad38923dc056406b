"""What stands beside attention or before the words, and where it is refused."""

import originals
import pytest
import torch
from begun import begun
from tiny_texts import rows
from torch import nn

from deepmine_auto import BadInput, fused_softmax
from deepmine_auto.host import the_host
from deepmine_auto.model.assemble import build_model
from deepmine_auto.model.guard import Refused
from deepmine_auto.pretrained.beside import Before, before_words, beside_attention
from deepmine_auto.pretrained.files import original_of
from deepmine_auto.pretrained.parts import blocks_of
from deepmine_auto.pretrained.positions import Positions
from deepmine_plugins.tasks.text_classification import OwnTexts

KINDS = ["bert", "roberta", "distilbert", "t5", "llama"]
IDS_BL = torch.tensor([[2, 5, 7, 3, 9], [2, 6, 3, 1, 1], [2, 8, 8, 3, 1]])
KEEP_BL = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] * 4 + [False]])


def stack_of(folder, **attention):
    """A backbone that nothing of is tuned."""
    _, model = begun(folder, **{f"attention/{name}": value for name, value in attention.items()})
    return model.backbone.eval()


def out_of(stack):
    with torch.no_grad():
        if hasattr(stack, "architecture"):
            return stack(IDS_BL, KEEP_BL).out
        return stack(input_ids=IDS_BL, attention_mask=KEEP_BL.long()).last_hidden_state


def other(kind):
    """A model that no backbone of ours is built around, because its layers ask for more than we know of."""
    from transformers import DebertaV2Config, DebertaV2Model, MistralConfig, MistralModel

    torch.manual_seed(0)
    if kind == "deberta":
        return DebertaV2Model(DebertaV2Config(vocab_size=40, max_position_embeddings=64, **originals.SIZES)).eval()
    return MistralModel(MistralConfig(vocab_size=40, sliding_window=3, num_key_value_heads=1, **originals.SIZES)).eval()


# -- beside attention --------------------------------------------------------------------------------------------------


class Softmax(nn.Module):
    def forward(self, q, k, v, mask):
        return fused_softmax(q, k, v, mask)


@pytest.mark.parametrize("kind", KINDS)
def test_what_computes_softmax_is_told_all_that_the_layer_knows(tmp_path, kind):
    stack = stack_of(getattr(originals, kind)(tmp_path / kind))
    expected, told = out_of(stack), []
    beside_attention(stack, lambda *shape: told.append(shape) or Softmax())
    torch.testing.assert_close(out_of(stack)[KEEP_BL], expected[KEEP_BL])
    assert told == [(2, 1 if kind == "llama" else 2, 8)] * 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("top", "layers"), [(0.25, 1), (0.5, 2), (1.0, 3)])
def test_below_the_highest_blocks_nothing_is_added(tmp_path, kind, top, layers):
    stack = stack_of(getattr(originals, kind)(tmp_path / kind))
    expected, made = out_of(stack), []
    beside_attention(stack, lambda *shape: made.append(Softmax()) or made[-1], top)
    assert len(made) == layers
    blocks = [any(each in made for each in block.modules()) for block in blocks_of(stack)]
    assert blocks == [False] * (3 - layers) + [True] * layers
    torch.testing.assert_close(out_of(stack)[KEEP_BL], expected[KEEP_BL])


def test_variants_in_the_place_of_softmax_are_refused(tmp_path):
    stack = stack_of(originals.bert(tmp_path / "bert"), kind="sliding_window")
    with pytest.raises(Refused, match=r"variants stand in the place of the pretrained model's\. Choose multi_head"):
        beside_attention(stack, lambda *shape: Softmax())


def test_a_model_that_never_asks_for_attention_has_nothing_to_add_to():
    with pytest.raises(BadInput, match=r"nothing can be added to it\. Choose another tuning"):
        beside_attention(other("deberta"), lambda *shape: Softmax())


def test_a_model_that_hides_more_than_the_future_is_refused_with_a_remedy_that_helps():
    with pytest.raises(Refused, match=r"hides more than padding and the future\. Choose another tuning"):
        beside_attention(other("mistral"), lambda *shape: Softmax())


# -- before the words --------------------------------------------------------------------------------------------------


class Vectors(nn.Module):
    def __init__(self, table, length=6):
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(length, table.embedding_dim))

    def forward(self, table):
        return self.vectors


class Zeros(nn.Module):
    def forward(self, table):
        return torch.zeros(2, table.embedding_dim)


def before_of(stack):
    (found,) = (each for each in stack.modules() if isinstance(each, Before))
    return found


@pytest.mark.parametrize("kind", [*KINDS, "deberta", "mistral"])
def test_words_are_read_as_ever_where_nobody_looks_at_what_is_before_them(tmp_path, kind):
    stack = stack_of(getattr(originals, kind)(tmp_path / kind)) if kind in KINDS else other(kind)
    expected = out_of(stack)
    before_words(stack, Vectors)
    assert out_of(stack).shape == expected.shape
    assert not torch.allclose(out_of(stack)[KEEP_BL], expected[KEEP_BL])
    before_of(stack).hidden = True
    torch.testing.assert_close(out_of(stack)[KEEP_BL], expected[KEEP_BL], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_words_keep_the_positions_that_the_model_gives_them(tmp_path, kind):
    stack, asked = stack_of(getattr(originals, kind)(tmp_path / kind)), []
    table = stack.model.embeddings.position_embeddings
    table.register_forward_pre_hook(lambda _, args: asked.append(args[0]))
    out_of(stack)
    own_BL = asked[-1].expand(len(IDS_BL), -1)
    before_words(stack, Vectors)
    out_of(stack)
    with_vectors_BL = asked[-1].expand(len(IDS_BL), -1)
    assert torch.equal(with_vectors_BL[:, 6:][KEEP_BL], own_BL[KEEP_BL])
    assert torch.equal(with_vectors_BL[:, :6], own_BL[:, :1].expand(-1, 6))


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_a_model_reads_as_long_texts_as_before(tmp_path, kind):
    stack = stack_of(getattr(originals, kind)(tmp_path / kind))
    before_words(stack, Vectors)
    ids_BL = torch.full((1, 64), 5)
    assert stack(ids_BL, torch.ones_like(ids_BL, dtype=torch.bool)).out.shape == (1, 64, 16)


def test_a_model_whose_words_would_move_is_refused(tmp_path, monkeypatch):
    stack, positions = stack_of(originals.bert(tmp_path / "bert")), Positions.of
    monkeypatch.setattr(Positions, "of", lambda self, ids_BL: positions(self, ids_BL) + 1)
    with pytest.raises(Refused, match=r"Vectors before the words change what a model says even where nobody looks"):
        before_words(stack, Vectors)


def test_a_model_that_reads_nothing_but_tokens_is_told_in_a_sentence(tmp_path):
    stack = stack_of(originals.bert(tmp_path / "bert"))
    stack.model.forward = lambda input_ids, attention_mask: None
    with pytest.raises(BadInput, match=r"BertModel reads nothing but tokens\. Choose another tuning"):
        before_words(stack, Vectors)


def test_a_variant_that_counts_distances_reads_them_too(tmp_path):
    stack = stack_of(originals.bert(tmp_path / "bert"), kind="sliding_window")
    before_words(stack, Vectors)
    assert out_of(stack).isfinite().all()


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("strided", "even where nobody looks at them"),
        ("cosformer", r"do not fit: 'cosformer' takes at most 64 tokens, not 70\. Choose another tuning"),
    ],
)
def test_a_variant_that_counts_from_the_beginning_or_has_no_room_is_refused(tmp_path, kind, why):
    with pytest.raises(Refused, match=why):
        before_words(stack_of(originals.bert(tmp_path / "bert"), kind=kind), Vectors)


def test_the_size_of_a_bundle_can_be_looked_at_before_anything_is_allocated(tmp_path):
    folder = originals.bert(tmp_path / "bert")
    params = {"attention/kind": "multi_head", "model/kind": "pretrained", "model/pretrained/origin": str(folder),
              "tuning/kind": "prompt"}  # fmt: skip
    task = OwnTexts()
    prepared = task.prepare_for(rows(), original_of(str(folder)))
    with torch.device("meta"):
        model = build_model(params, task, prepared, the_host())
    assert all(each.is_meta for each in model.state_dict().values())


def test_looking_whether_words_move_draws_no_random_number_and_leaves_the_model_as_it_trains(tmp_path):
    stack = stack_of(originals.bert(tmp_path / "bert")).train()
    before = torch.get_rng_state()
    before_words(stack, lambda table: Zeros())
    assert torch.equal(torch.get_rng_state(), before)
    assert all(each.training for each in stack.model.encoder.modules())
