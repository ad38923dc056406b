"""What of a pretrained model learns, and that nothing else does."""

import originals
import pytest
import torch
from begun import begun
from torch import nn
from transformers import GPT2Config, GPT2Model

from deepmine_auto.errors import BadInput
from deepmine_auto.host import the_host
from deepmine_auto.model.guard import Refused
from deepmine_auto.pretrained.memory import frozen_blocks
from deepmine_auto.pretrained.merging import merge
from deepmine_auto.pretrained.parts import PUT_IN, blocks_of, ends_of, linears_of, top_blocks
from deepmine_auto.space import Choice, ranges

KINDS = {"bert": originals.bert, "roberta": originals.roberta, "t5": originals.t5, "llama": originals.llama}
MERGED = ["lora", "dora", "rslora", "adalora", "ia3", "vera"]
IN_BLOCKS = [*MERGED, "houlsby", "pfeiffer"]
BESIDE = [*IN_BLOCKS, "prefix"]
HALF = {"top": 0.5}
IDS, KEEP = torch.tensor([[2, 5, 7, 3], [2, 6, 3, 0]]), torch.tensor([[True] * 4, [True] * 3 + [False]])


@pytest.fixture
def bert(tmp_path):
    return originals.bert(tmp_path / "bert")


def model_of(folder, kind, seed=0, beside=None, **tuning):
    named = {f"tuning/{kind}/{name}": value for name, value in tuning.items()}
    return begun(folder, seed, **{"tuning/kind": kind, **named, **(beside or {})})[1]


def outputs(model):
    with torch.no_grad():
        return model.eval().backbone(IDS, KEEP).out[KEEP]


def trained(model):
    """The names of the backbone's weights that one step moves."""
    before = {name: each.detach().clone() for name, each in model.backbone.named_parameters()}
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], 0.5)
    for _ in range(2):  # what begins at zero lets its partner learn from the second step on
        optimizer.zero_grad()
        model.train()(IDS, KEEP).out.square().sum().backward()
        optimizer.step()
    return {name for name, each in model.backbone.named_parameters() if not torch.equal(each, before[name])}


def layers_of(names):
    """The numbers of the layers in which weights stand."""
    return {int(name.split("layer.")[1].split(".")[0]) for name in names}


@pytest.mark.parametrize(("kind", "tuning"), [*((each, {}) for each in BESIDE), *((each, HALF) for each in IN_BLOCKS)])
def test_it_begins_as_the_model_that_others_trained(bert, kind, tuning):
    # with seed 0 it would draw at first the very weights that are in the folder
    tuned = model_of(bert, kind, seed=1, **tuning)
    torch.testing.assert_close(outputs(tuned), outputs(model_of(bert, "full")))


@pytest.mark.parametrize("kind", [*BESIDE, "prompt"])
def test_what_others_trained_stays_as_it_is(bert, kind):
    moved = trained(model_of(bert, kind))
    own = {name for name, _ in model_of(bert, "full").backbone.named_parameters()}
    assert moved, "something learns"
    assert not {name.replace(".base_layer", "") for name in moved} & own


@pytest.mark.parametrize("kind", [*BESIDE, "prompt"])
@pytest.mark.parametrize("architecture", ["roberta", "distilbert", "t5", "llama"])
def test_it_fits_other_architectures(tmp_path, kind, architecture):
    model = model_of(getattr(originals, architecture)(tmp_path / architecture), kind)
    assert any(each.requires_grad for each in model.backbone.parameters())
    assert model(IDS, KEEP).out.isfinite().all()


def test_all_of_it_learns_with_full(bert):
    model = model_of(bert, "full")
    assert all(each.requires_grad for each in model.parameters())


@pytest.mark.parametrize(("layers", "learning"), [(0, set()), (1, {"2"}), (2, {"1", "2"}), (12, {"0", "1", "2"})])
def test_the_top_layers_learn_and_what_is_below_does_not(bert, layers, learning):
    model = model_of(bert, "top_layers", layers=layers)
    moving = [name for name, each in model.backbone.named_parameters() if each.requires_grad]
    assert {name.split("layer.")[1].split(".")[0] for name in moving} == learning
    assert not any("embeddings" in name for name in moving)


@pytest.mark.parametrize("tuning", [{}, HALF])
@pytest.mark.parametrize("kind", MERGED)
def test_merged_it_computes_the_same_and_nothing_of_it_is_left(bert, kind, tuning):
    model = model_of(bert, kind, **tuning)
    trained(model)
    before = outputs(model)
    assert merge(model.backbone)
    torch.testing.assert_close(outputs(model), before, rtol=1e-4, atol=1e-5)
    assert model.state_dict().keys() == model_of(bert, "full").state_dict().keys()


@pytest.mark.parametrize("kind", ["houlsby", "pfeiffer", "prefix", "prompt"])
def test_what_is_no_sum_of_matrices_is_not_merged(bert, kind):
    assert not merge(model_of(bert, kind).backbone)


def test_pfeiffer_has_one_adapter_a_block_and_houlsby_two(bert):
    counts = {kind: sum(name.endswith("down.weight") for name, _ in model_of(bert, kind).named_parameters())
              for kind in ("pfeiffer", "houlsby")}  # fmt: skip
    assert counts == {"pfeiffer": 3, "houlsby": 6}


# -- which blocks are tuned --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("top", "layers"), [(0.25, {2}), (0.5, {1, 2}), (1.0, {0, 1, 2})])
@pytest.mark.parametrize("kind", IN_BLOCKS)
def test_the_highest_share_of_the_blocks_learns_rounded_up_and_nothing_else(bert, kind, top, layers):
    model = model_of(bert, kind, top=top)
    assert layers_of(name for name, _ in model.backbone.named_parameters() if ".base_layer." in name) == layers
    assert layers_of(trained(model)) == layers


@pytest.mark.parametrize("kind", IN_BLOCKS)
def test_which_blocks_are_tuned_is_searched_and_by_default_all_are(kind):
    plugin = the_host().get("tuning", kind)
    assert ranges(plugin)["top"] == Choice(0.25, 0.5, 1.0)
    assert plugin().top == 1.0


@pytest.mark.parametrize(("top", "count"), [(0.0, 1), (0.01, 1), (0.25, 3), (0.26, 4), (1.0, 12)])
def test_a_share_of_the_blocks_is_rounded_up_to_one_at_least(top, count):
    blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(12))
    assert top_blocks(nn.ModuleDict({"layers": blocks}), top) == [*blocks][12 - count :]


def test_variants_below_what_is_tuned_learn_nothing(bert):
    model = model_of(bert, "lora", beside={"attention/kind": "sigmoid"}, top=0.25)
    learning = [name for name, each in model.backbone.named_parameters() if each.requires_grad]
    assert layers_of(name for name in learning if PUT_IN in name.split(".")) == {2}


@pytest.mark.parametrize("kind", BESIDE)
def test_what_lies_below_what_is_tuned_stays_as_it_is(bert, kind):
    counts = {top: frozen_blocks(model_of(bert, kind, top=top).backbone.model) for top in (0.25, 0.5, 1.0)}
    assert counts == {0.25: 2, 0.5: 1, 1.0: 0}


def test_the_fewer_blocks_it_tunes_the_less_work_it_is():
    for kind in BESIDE:
        assert [the_host().get("tuning", kind)(top=top).work() for top in (0.25, 1.0)] == [0.25, 1.0]
    assert the_host().get("tuning", "full")().work() == 1.0


# -- the parts of a model ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", KINDS)
def test_blocks_and_their_ends_are_found_whatever_they_are_called(tmp_path, architecture):
    stack = model_of(KINDS[architecture](tmp_path / architecture), "full").backbone
    blocks = blocks_of(stack)
    assert len(blocks) == 3
    attention, feed_forward = ends_of(blocks[0])
    assert attention.split(".")[-1] in ("dense", "o", "o_proj")
    assert feed_forward.split(".")[-1] in ("dense", "wo", "down_proj")
    assert set(linears_of(stack, "attention")) < set(linears_of(stack, "linear"))
    assert len(linears_of(stack, "attention")) == 12
    assert linears_of(stack, "attention", 0.5) == linears_of(stack, "attention")[4:]


def test_what_surgery_put_in_is_no_part_of_the_model_that_others_trained():
    within = nn.ModuleDict({"many": nn.ModuleList(nn.Linear(2, 2) for _ in range(9))})
    attention = nn.ModuleDict({"o_proj": nn.Linear(2, 2), PUT_IN: within})
    blocks = nn.ModuleList([nn.ModuleDict({"self_attn": attention, "down_proj": nn.Linear(2, 2)})])
    model = nn.ModuleDict({"layers": blocks})
    assert blocks_of(model) is blocks
    assert ends_of(blocks[0]) == ("self_attn.o_proj", "down_proj")
    assert linears_of(model, "attention") == ["layers.0.self_attn.o_proj"]
    assert linears_of(model, "linear") == ["layers.0.self_attn.o_proj", "layers.0.down_proj"]


def test_a_model_without_blocks_is_told_in_a_sentence():
    with pytest.raises(BadInput, match=r"Linear has no list of layers\. Choose another tuning"):
        blocks_of(torch.nn.Linear(2, 2))


def test_a_block_without_attention_is_told_in_a_sentence():
    with pytest.raises(BadInput, match=r"Sequential has no attention and feed-forward part made of nn\.Linear\."):
        ends_of(torch.nn.Sequential(torch.nn.Linear(2, 2)))


def test_layers_are_found_by_their_own_name_too(bert):
    stack = model_of(bert, "full").backbone
    names = [f"model.encoder.layer.{layer}.attention.self.query" for layer in range(3)]
    assert linears_of(stack, "query") == names
    assert linears_of(stack, "query", 0.25) == names[2:]
    with pytest.raises(Refused, match=r"BertModel has no such layer as 'qurey' in the blocks to be tuned, but query, "):
        linears_of(stack, "qurey")


def test_targets_that_are_not_there_are_told_with_the_nearest_that_are():
    block = nn.ModuleDict({each: nn.Linear(2, 2) for each in ("up", "down", "mix", "attend")})
    told = r"ModuleDict has no such layer as 'attention' in .*, but attend, down, mix\. Choose another tuning, or other"
    with pytest.raises(Refused, match=told):
        linears_of(nn.ModuleDict({"layers": nn.ModuleList([block])}), "attention")


@pytest.mark.parametrize("targets", ["attention", "linear"])
def test_a_model_whose_maps_are_all_of_another_kind_is_told_by_its_name_in_a_backbone_too(targets):
    gpt2 = GPT2Model(GPT2Config(vocab_size=12, n_positions=16, n_embd=16, n_layer=2, n_head=2))
    told = r"GPT2Model has no nn\.Linear in the blocks to be tuned\. Choose another tuning, such as full"
    for model in (gpt2, nn.ModuleDict({"model": gpt2})):
        with pytest.raises(BadInput, match=told):
            linears_of(model, targets)


# -- biases ------------------------------------------------------------------------------------------------------------


def test_only_biases_learn_with_bitfit(bert):
    moved = trained(model_of(bert, "bitfit"))
    assert moved
    assert all(name.endswith("bias") for name in moved)


@pytest.mark.parametrize("beside", [{}, {"attention/query_temperature/use": True}])
def test_a_model_without_biases_cannot_learn_them_nor_those_of_a_variant_alone(tmp_path, beside):
    with pytest.raises(BadInput, match=r"LlamaModel has no biases\. Choose another tuning, such as lora"):
        model_of(originals.llama(tmp_path / "llama"), "bitfit", beside=beside)
