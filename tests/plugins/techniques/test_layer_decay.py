import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from deepmine_auto import AttentionShape, StackDesign, TrainingFacts, TransformerStack
from deepmine_auto.host import the_host
from deepmine_auto.model.assemble import Model
from deepmine_auto.model.multi_head import token_mixer
from deepmine_auto.testing.technique import STEPS, TechniquePromises, Words
from deepmine_auto.training.groups import split_by_rate
from deepmine_plugins.optimizers.sgd import Sgd
from deepmine_plugins.techniques.layer_decay import LayerDecay


class TestLayerDecay(TechniquePromises):
    technique = LayerDecay


class Wrapped(nn.Module):
    """A backbone that holds a model of another library."""

    def __init__(self, model):
        super().__init__()
        self.model = model


def stack(depth=4, **design):
    shape = AttentionShape(dim=8, heads=2, kv_heads=2)
    variant = the_host().get("attention", "multi_head")()
    return TransformerStack(
        Words(vectors_VE=None), lambda each: token_mixer(variant, [], each), shape, StackDesign(depth=depth, **design)
    )


def bert():
    config = BertConfig(
        vocab_size=12, hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=16,
    )  # fmt: skip
    return Wrapped(BertModel(config))


def under_a_head(backbone):
    return Model(backbone, nn.ModuleList([nn.Linear(8, 3)]))


def distances(backbone, decay=0.5):
    """The exponent of `decay` for each weight, by its name in the backbone."""
    model = under_a_head(backbone)
    rates = LayerDecay(decay=decay).build(TrainingFacts(model, Words(), STEPS, torch.Generator())).rates(model)
    exponents = torch.log(torch.tensor(list(rates.values()))) / torch.log(torch.tensor(decay))
    assert torch.allclose(exponents, exponents.round(), atol=1e-4)
    whole = exponents.round().int().tolist()
    return {name.removeprefix("backbone."): each for name, each in zip(rates, whole, strict=True)}


def of(found, prefix):
    return {each for name, each in found.items() if name.startswith(prefix)}


def test_each_block_of_our_stack_is_one_step_below_the_next():
    found = distances(stack(depth=4))
    assert [of(found, f"blocks.{each}.") for each in range(4)] == [{4}, {3}, {2}, {1}]
    assert of(found, "norm.") == {1}
    assert of(found, "embedding.") == {5}


def test_what_our_stack_does_before_its_blocks_is_below_them():
    found = distances(stack(depth=2, neighbours=True))
    assert of(found, "embedding.") | of(found, "neighbours.") == {3}
    assert of(found, "blocks.0.") == {2}


def test_a_stack_of_more_than_ten_blocks_is_counted_by_number():
    found = distances(stack(depth=12))
    assert [of(found, f"blocks.{each}.") for each in range(12)] == [{12 - each} for each in range(12)]


def test_a_bert_has_its_layers_embeddings_and_pooler_in_their_places():
    found = distances(bert())
    assert [of(found, f"model.encoder.layer.{each}.") for each in range(3)] == [{3}, {2}, {1}]
    assert of(found, "model.embeddings.") == {4}
    assert of(found, "model.pooler.") == {1}


@pytest.mark.parametrize("backbone", [stack(), bert()], ids=["ours", "bert"])
def test_every_weight_of_the_backbone_has_a_rate_and_the_head_none(backbone):
    assert distances(backbone).keys() == dict(backbone.named_parameters()).keys()


def test_an_embedding_that_stands_after_the_blocks_is_below_them_too():
    backbone = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(8, 8) for _ in range(2)])})
    backbone["distances"] = nn.Embedding(4, 8)
    backbone["norm"] = nn.LayerNorm(8)
    found = distances(backbone)
    assert (of(found, "distances."), of(found, "layers.0."), of(found, "norm.")) == ({3}, {2}, {1})


def test_without_numbered_blocks_all_but_the_embeddings_is_the_top():
    found = distances(nn.ModuleDict({"reader": nn.LSTM(8, 8, 2), "table": nn.Embedding(4, 8)}))
    assert (of(found, "table."), of(found, "reader.")) == ({2}, {1})


def test_a_number_inside_a_block_is_no_block():
    experts = nn.ModuleList([nn.Linear(8, 8) for _ in range(5)])
    found = distances(nn.ModuleDict({"blocks": nn.ModuleList([nn.ModuleDict({"experts": experts}), nn.Linear(8, 8)])}))
    assert (of(found, "blocks.0."), of(found, "blocks.1.")) == ({2}, {1})


def test_numbers_of_the_head_count_no_blocks():
    model = Model(stack(depth=1), nn.ModuleList([nn.Linear(8, 3) for _ in range(9)]))
    applied = LayerDecay(decay=0.5).build(TrainingFacts(model, Words(), STEPS, torch.Generator()))
    rates = applied.rates(model)
    assert min(rates.values()) == 0.25
    assert not any(name.startswith("head.") for name in rates)


def test_the_first_step_of_a_lower_layer_is_shorter_by_its_rate():
    model = under_a_head(stack(depth=2))
    applied = LayerDecay(decay=0.5).build(TrainingFacts(model, Words(), STEPS, torch.Generator()))
    weights = dict(model.named_parameters())
    before = {name: each.detach().clone() for name, each in weights.items()}
    optimizer = Sgd(lr=0.1, decay=0.0).build(model.parameters())
    split_by_rate(optimizer, {weights[name]: rate for name, rate in applied.rates(model).items()})
    for each in weights.values():
        each.grad = torch.ones_like(each)
    optimizer.step()
    moved = {name: (before[name] - each.detach()).max().item() for name, each in weights.items()}
    assert moved["head.0.weight"] == pytest.approx(0.19, rel=1e-4)
    assert moved["backbone.norm.weight"] == pytest.approx(0.19 / 2, rel=1e-4)
    assert moved["backbone.embedding.table.weight"] == pytest.approx(0.19 / 8, rel=1e-4)
