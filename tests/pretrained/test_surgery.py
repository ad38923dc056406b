"""Attention variants inside models that others trained."""

import originals
import pytest
import torch
from begun import begun

from deepmine_auto.contracts import AttentionModifier
from deepmine_auto.errors import BadInput
from deepmine_auto.host import the_host
from deepmine_auto.model.assemble import attention_of
from deepmine_auto.model.guard import Refused
from deepmine_auto.pretrained import surgery

KINDS = {"bert": originals.bert, "roberta": originals.roberta, "t5": originals.t5, "llama": originals.llama}
TEXTS = ["good day", "the cold road of my house"]


def model_of(folder, tuning="full", **attention):
    named = {f"attention/{name}": value for name, value in attention.items()}
    prepared, model = begun(folder, **{"tuning/kind": tuning, **named})
    return prepared, model.eval()


def outputs(prepared, model, texts=TEXTS):
    ids = prepared.encode(texts)
    length = max(map(len, ids))
    tokens_BL = torch.tensor([each + [0] * (length - len(each)) for each in ids])
    keep_BL = torch.arange(length) < torch.tensor([[len(each)] for each in ids])
    with torch.no_grad():
        return model.backbone(tokens_BL, keep_BL).out, keep_BL


def neutral(name):
    """The params with which a variant changes nothing."""
    variant = the_host().get("attention", name)
    used = {f"{name}/use": True} if issubclass(variant, AttentionModifier) else {"kind": name}
    return {**used, **{f"{name}/{field}": value for field, value in variant.neutral.items()}}


NEUTRAL = sorted(
    name
    for name, each in the_host().offered("attention").items()
    if each.thing.neutral is not None and name not in ("multi_head", "registers")  # softmax itself, and none of them
)


REFUSED = [("t5", "talking_heads")]
"""Of kinds and neutral variants those that do not go together: the positions of a T5 are a bias, which is not mixed."""

PAIRS = [(kind, variant) for kind in KINDS for variant in NEUTRAL if (kind, variant) not in REFUSED]


@pytest.mark.parametrize(("kind", "variant"), PAIRS)
def test_a_variant_at_its_neutral_point_changes_no_logit_by_more_than_1e_5(tmp_path, kind, variant):
    folder = KINDS[kind](tmp_path / kind)
    plain, keep_BL = outputs(*model_of(folder))
    prepared, model = model_of(folder, **neutral(variant))
    found, _ = outputs(prepared, model)
    assert any(isinstance(each, surgery.Transplant) for each in model.modules())
    torch.testing.assert_close(found[keep_BL], plain[keep_BL], atol=1e-5, rtol=0.0)
    torch.testing.assert_close(model.head(found, keep_BL), model.head(plain, keep_BL), atol=1e-5, rtol=0.0)


@pytest.mark.parametrize(("kind", "variant"), REFUSED)
def test_a_neutral_variant_that_a_model_asks_too_much_of_is_refused(tmp_path, kind, variant):
    with pytest.raises(Refused, match=f"'{variant}' does not declare the mask feature 'bias'"):
        model_of(KINDS[kind](tmp_path / kind), **neutral(variant))


def vit():
    """A model that looks at pictures, and says which of three classes they are."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(image_size=8, patch_size=4, num_labels=3, initializer_range=0.3, **originals.SIZES)
    return ViTForImageClassification(config).eval()


def operated(model, **attention):
    """A model with other attention in each layer."""
    params = {"attention/kind": "multi_head", **{f"attention/{name}": value for name, value in attention.items()}}
    assert surgery.operate(model, surgery.attend(*attention_of(params, the_host())), max_len=5)
    assert sum(isinstance(each, surgery.Transplant) for each in model.modules()) == 3
    return model


def logits_of(model):
    pixels = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(pixel_values=pixels).logits


@pytest.mark.parametrize("variant", NEUTRAL)
def test_a_neutral_variant_changes_no_logit_of_a_model_that_looks_at_pictures(variant):
    logits_BC = logits_of(operated(vit(), **neutral(variant)))
    torch.testing.assert_close(logits_BC, logits_of(vit()), atol=1e-5, rtol=0.0)


def test_any_other_variant_changes_what_a_model_says_of_pictures():
    assert (logits_of(operated(vit(), kind="sigmoid")) - logits_of(vit())).abs().max() > 1e-3


def test_variants_of_all_ways_have_a_neutral_point():
    assert {"learned_temperature", "query_temperature", "relative_bias", "talking_heads", "adaptive_span"} < {*NEUTRAL}


def test_softmax_is_left_to_the_model_itself(tmp_path):
    _, model = model_of(originals.bert(tmp_path / "bert"))
    assert model.backbone.model.config._attn_implementation == "sdpa"
    assert not any(isinstance(each, surgery.Transplant) for each in model.modules())


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("variant", ["sliding_window", "entmax", "linear"])
def test_padding_is_not_seen_by_what_takes_the_place(tmp_path, kind, variant):
    prepared, model = model_of(KINDS[kind](tmp_path / kind), kind=variant)
    together, keep_BL = outputs(prepared, model)
    alone, _ = outputs(prepared, model, TEXTS[:1])
    torch.testing.assert_close(together[:1, : int(keep_BL[0].sum())], alone)


def test_a_causal_model_stays_causal(tmp_path):
    prepared, model = model_of(originals.llama(tmp_path / "llama"), kind="sliding_window")
    short, _ = outputs(prepared, model, ["the cold road"])
    long, _ = outputs(prepared, model, ["the cold road of my house"])
    torch.testing.assert_close(long[:, :4], short[:, :4])


def test_what_it_learns_is_trained_and_saved_with_the_model(tmp_path):
    _, model = model_of(originals.bert(tmp_path / "bert"), **{"learned_temperature/use": True})
    learned = [name for name, each in model.named_parameters() if surgery.NAME in name and each.requires_grad]
    assert len(learned) == 3, "one in each layer"
    assert set(learned) <= model.state_dict().keys()


def layers_learning(model):
    """The layers whose variants learn."""
    learned = [name for name, each in model.named_parameters() if surgery.NAME in name and each.requires_grad]
    return [int(name.split("layer.")[1].split(".")[0]) for name in learned]


@pytest.mark.parametrize("tuning", ["full", "lora", "bitfit", "houlsby", "prompt"])
def test_what_was_put_in_learns_although_a_tuning_freezes_the_model_around_it(tmp_path, tuning):
    _, model = model_of(originals.bert(tmp_path / "bert"), tuning, kind="sigmoid")
    assert layers_learning(model) == [0, 1, 2]


@pytest.mark.parametrize("tuning", ["lora", "ia3", "adalora", "vera", "houlsby"])
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_a_tuning_adapts_the_layers_that_others_trained_alone(tmp_path, kind, tuning):
    _, model = model_of(KINDS[kind](tmp_path / kind), tuning, **{"query_temperature/use": True})
    adapted = {name.split(".base_layer")[0] for name, _ in model.named_parameters() if "base_layer" in name}
    assert adapted
    assert not [name for name in adapted if surgery.NAME in name]
    if tuning == "houlsby":
        ends = {"bert": "attention.output.dense", "llama": "self_attn.o_proj"}
        assert sum(name.endswith(ends[kind]) for name in adapted) == 3


def test_what_was_put_in_stays_where_the_lower_layers_shall_have_no_gradient(tmp_path):
    _, model = model_of(originals.bert(tmp_path / "bert"), "top_layers", kind="sigmoid")
    assert layers_learning(model) == [1, 2]


def test_the_losses_of_what_was_put_in_are_those_of_all_layers(tmp_path):
    prepared, model = model_of(originals.bert(tmp_path / "bert"), **{"adaptive_span/use": True})
    ids = torch.tensor(prepared.encode(["good day"]))
    mixed = model(ids, torch.ones_like(ids, dtype=torch.bool))
    layers = [each.losses["span"] for each in model.modules() if isinstance(each, surgery.Transplant)]
    assert len(layers) == 3
    torch.testing.assert_close(mixed.losses["span"], sum(layers))
    mixed.losses["span"].backward()
    moved = [each.grad for name, each in model.named_parameters() if "modifiers" in name]
    assert moved
    assert all(each is not None for each in moved)


def test_layers_may_take_different_variants(tmp_path):
    hybrid = {"placement/kind": "hybrid", "placement/hybrid/ratio": 1, "placement/hybrid/kind": "multi_head"}
    _, model = begun(originals.bert(tmp_path / "bert"), **{"attention/kind": "sliding_window", **hybrid})
    kinds = [each.mixing.variants[0].name for each in model.modules() if isinstance(each, surgery.Transplant)]
    assert kinds == ["sliding_window", "multi_head", "sliding_window"]


def test_a_mixer_is_refused(tmp_path):
    with pytest.raises(Refused, match=r"has projections of its own, and a pretrained layer has too"):
        model_of(originals.bert(tmp_path / "bert"), kind="synthesizer")


def test_a_variant_that_wants_other_heads_is_refused(tmp_path):
    with pytest.raises(Refused, match="'grouped_query' wants other heads than the pretrained layer has"):
        model_of(originals.bert(tmp_path / "bert"), kind="grouped_query", **{"grouped_query/kv_heads": 1})


@pytest.mark.parametrize("attention", [{"kind": "linear"}, {"kind": "sliding_window"}, {"talking_heads/use": True}])
def test_what_takes_no_bias_is_refused_where_the_positions_of_a_model_are_one(tmp_path, attention):
    with pytest.raises(Refused, match=r"'\w+' does not declare the mask feature 'bias'\. Choose another variant\."):
        model_of(originals.t5(tmp_path / "t5"), **attention)


def test_what_takes_a_bias_hears_of_the_positions_of_a_model(tmp_path):
    prepared, model = model_of(originals.t5(tmp_path / "t5"), kind="sigmoid")
    before, keep_BL = outputs(prepared, model)
    with torch.no_grad():
        for name, each in model.named_parameters():
            each.mul_(0.0 if "relative_attention_bias" in name else 1.0)
    assert not torch.allclose(outputs(prepared, model)[0][keep_BL], before[keep_BL])


def deberta(folder):
    """It computes its attention by itself."""
    from transformers import DebertaV2Config, DebertaV2Model

    config = DebertaV2Config(vocab_size=len(originals.WORDS), max_position_embeddings=64, **originals.SIZES)
    return originals._saved(folder, DebertaV2Model, config, originals.word_pieces())


def mistral(folder):
    """It hides more than padding and the future."""
    from transformers import MistralConfig, MistralModel

    config = MistralConfig(vocab_size=len(originals.WORDS), sliding_window=3, num_key_value_heads=1, **originals.SIZES)
    return originals._saved(folder, MistralModel, config, originals.word_pieces())


def mamba(folder):
    """It has no attention, and its config tells no number of heads."""
    from transformers import MambaConfig, MambaModel

    config = MambaConfig(vocab_size=len(originals.WORDS), hidden_size=16, num_hidden_layers=2, state_size=4)
    return originals._saved(folder, MambaModel, config, originals.word_pieces())


def deepseek(folder):
    """Its values are shorter than its queries."""
    from transformers import DeepseekV3Config, DeepseekV3Model

    latent = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 6}
    sizes = {"vocab_size": len(originals.WORDS), "num_key_value_heads": 2, "first_k_dense_replace": 3, **latent}
    return originals._saved(
        folder, DeepseekV3Model, DeepseekV3Config(**sizes, **originals.SIZES), originals.word_pieces()
    )


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (mamba, "computes its attention by itself"),
        (deberta, "computes its attention by itself.*multi_head alone"),
        (mistral, "hides more than"),
        (deepseek, "values of the pretrained model are of another length than its queries.*multi_head"),
        (originals.albert, r"AlbertModel share one attention, and each would need its own\. Choose multi_head"),
    ],
)
def test_a_model_whose_attention_cannot_be_replaced_is_refused(tmp_path, kind, told):
    with pytest.raises(BadInput, match=told):
        model_of(kind(tmp_path / "model"), kind="sliding_window")


@pytest.mark.parametrize("kind", [deberta, mamba, mistral, deepseek, originals.albert])
def test_with_its_own_softmax_such_a_model_is_fine_tuned_as_it_is(tmp_path, kind):
    _, model = model_of(kind(tmp_path / "model"), kind="multi_head")
    own = model.backbone.model
    assert own.config._attn_implementation != surgery.NAME
    assert not surgery.was_operated(model)
    model(torch.tensor([[5, 6, 7]]), torch.ones(1, 3, dtype=torch.bool)).out.sum().backward()
    assert any(each.grad is not None for each in own.parameters())


def test_a_mask_that_hides_more_than_we_know_of_is_refused():
    with pytest.raises(Refused, match="hides more than padding and the future"):
        surgery.padding(1, 4, 4, mask_function=lambda *at: True)


def test_what_a_layer_asks_beside_is_refused():
    x_BHLK = torch.zeros(1, 1, 2, 4)
    with pytest.raises(Refused, match="asks for 'softcap', which no variant knows"):
        surgery.attention(torch.nn.Identity(), x_BHLK, x_BHLK, x_BHLK, None, softcap=30.0)


@pytest.mark.parametrize("variant", ["moba", "retention"])
def test_a_variant_that_sees_the_past_alone_stands_in_a_causal_model(tmp_path, variant):
    prepared, model = model_of(originals.llama(tmp_path / "llama"), kind=variant)
    short, _ = outputs(prepared, model, ["the cold road"])
    long, _ = outputs(prepared, model, ["the cold road of my house"])
    torch.testing.assert_close(long[:, :4], short[:, :4])


@pytest.mark.parametrize(("asked", "causal"), [(None, True), (True, True), (False, False)])
def test_a_layer_is_causal_unless_the_model_tells_it_not_to_be(asked, causal):
    layer, x_BHLK = torch.nn.Identity(), torch.zeros(1, 1, 2, 4)
    layer.is_causal = True
    with surgery._probing() as calls:
        surgery.attention(layer, x_BHLK, x_BHLK, x_BHLK, None, is_causal=asked)
    assert [each.causal for each in calls] == [causal]


def test_what_stands_in_a_layer_is_compiled_once():
    from torch._dynamo.utils import counters

    class Same(surgery.Insert):
        def mix(self, q_BHLK, k_BGSK, v_BGSK, mask):
            return v_BGSK * 2.0

    insert, x_BHLK = Same(causal=False), torch.zeros(2, 2, 3, 4)
    insert(x_BHLK, x_BHLK, x_BHLK, None, None)
    torch._dynamo.reset()
    counters.clear()
    program = torch.compile(insert, backend="eager", dynamic=True)
    for _ in range(3):
        program(x_BHLK, x_BHLK, x_BHLK, None, None)
    assert counters["stats"]["unique_graphs"] == 1
