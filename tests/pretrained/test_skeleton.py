"""What a pretrained model refuses is found out before a study is written."""

import originals
import pytest
import torch

from deepmine_auto.errors import BadInput
from deepmine_auto.host import the_host
from deepmine_auto.planning.plan import plan
from deepmine_auto.planning.request import Request
from deepmine_auto.pretrained import skeleton
from deepmine_auto.pretrained.skeleton import Skeleton, misfits
from deepmine_auto.pretrained.surgery import REPLACEABLE
from deepmine_auto.space import Space

SIZES = {"vocab_size": len(originals.WORDS), "max_position_embeddings": 64}


@pytest.fixture
def bert(tmp_path):
    return originals.bert(tmp_path / "bert")


def mpnet(folder):
    """A model that computes its attention by itself."""
    from transformers import MPNetConfig, MPNetModel

    return originals._saved(folder, MPNetModel, MPNetConfig(**SIZES, **originals.SIZES), originals.word_pieces())


def gpt2(folder):
    """A model whose maps are of a kind of their own."""
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(vocab_size=len(originals.WORDS), n_positions=64, n_embd=16, n_layer=3, n_head=2)
    return originals._saved(folder, GPT2Model, config, originals.word_pieces())


def wide(folder):
    """A BERT of more heads."""
    return originals.bert(folder, num_attention_heads=4)


def bart(folder):
    """A model of two halves."""
    from transformers import BartConfig, BartModel

    config = BartConfig(**SIZES, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
                        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, pad_token_id=0,
                        bos_token_id=2, eos_token_id=3, decoder_start_token_id=3)  # fmt: skip
    return originals._saved(folder, BartModel, config, originals.word_pieces())


def skeleton_of(folder):
    return Skeleton(str(folder), 64, the_host())


def refused(folder, *attention):
    variants = {name: the_host().get("attention", name) for name in attention}
    return [*misfits([skeleton_of(folder)], variants)]


def planned(tmp_path, *folders, **asked):
    request = Request(backbone=[*map(str, folders)], trials=1, storage=str(tmp_path / "s.db"), **asked)
    return plan(request, the_host())


def ranges_of(found):
    return {each.name: each.range for each in Space.from_json(found.spec["space"]).params}


# -- weights -----------------------------------------------------------------------------------------------------------


def test_it_has_no_memory(bert):
    assert {each.device.type for each in skeleton_of(bert).stack.parameters()} == {"meta"}


def test_weights_that_are_cut_off_are_refused(bert):
    file = bert / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(BadInput, match=r"its tensors do not fill it\. Download the model again"):
        skeleton_of(bert)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda own: {name: each for name, each in own.items() if "layer.2.output" not in name}, r"lack \d+ that the"),
        (lambda own: {name: each[:1] for name, each in own.items()}, "are not those of the model in its config.json"),
    ],
)
def test_weights_of_another_model_are_refused(bert, change, told):
    originals.write_weights(bert, {name: each.clone() for name, each in change(originals.weights(bert)).items()})
    with pytest.raises(BadInput, match=told):
        skeleton_of(bert)


def test_weights_are_not_loaded_where_their_headers_say_all(bert, monkeypatch):
    with_heads = {f"bert.{name}": each for name, each in originals.weights(bert).items()}
    originals.write_weights(bert, with_heads | {"cls.predictions.bias": torch.zeros(3)})
    monkeypatch.setattr(skeleton, "weights_for", None)
    assert skeleton_of(bert).name == str(bert)


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "t5", "llama", "albert"])
def test_models_of_all_kinds_have_one(tmp_path, kind):
    assert skeleton_of(getattr(originals, kind)(tmp_path / kind)).refusal(lambda stack: None) is None


def test_a_config_of_other_types_is_refused(bert):
    originals.rewrite(bert / "config.json", hidden_size="sixteen")
    with pytest.raises(BadInput, match=r"The model's config\.json cannot be used: .*\. Download the model again"):
        skeleton_of(bert)


def test_a_model_of_two_halves_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"'bart' has a decoder too, and a text alone is read here\. Choose an encoder"):
        skeleton_of(bart(tmp_path / "bart"))


# -- attention ---------------------------------------------------------------------------------------------------------


def test_what_can_stand_in_a_model_is_not_refused(bert):
    assert refused(bert, "multi_head", "sliding_window", "nystrom", "linear", "learned_temperature", "rotary") == []


@pytest.mark.parametrize(
    ("kind", "variant", "why"),
    [
        (originals.llama, "nystrom", "'nystrom' cannot be used in causal mode"),
        (originals.t5, "sliding_window", "'sliding_window' does not declare the mask feature 'bias'"),
        (wide, "grouped_query", "'grouped_query' wants other heads than the pretrained layer has"),
        (originals.bert, "output_gate", "A modifier wants to see what a layer reads, which is not known here"),
        (originals.albert, "sliding_window", "Layers of AlbertModel share one attention"),
        (mpnet, "sliding_window", "MPNetModel computes its attention by itself"),
    ],
)
def test_what_cannot_stand_in_a_model_is_left_out_with_the_reason(tmp_path, kind, variant, why):
    folder = kind(tmp_path / "model")
    (said,) = refused(folder, "multi_head", variant)
    assert said.startswith(f"{variant} cannot stand in {folder}: {why}")


def test_where_none_can_stand_in_it_a_model_is_refused_with_those_in_which_one_can(tmp_path):
    told = r"^sliding_window, linear cannot .*: MPNetModel computes its attention by itself, .* in bert, .* Add one"
    with pytest.raises(BadInput, match=told):
        refused(mpnet(tmp_path / "mpnet"), "sliding_window", "linear")


def test_the_note_of_what_is_left_out_says_too_in_which_models_a_variant_can_stand(tmp_path):
    (said,) = refused(mpnet(tmp_path / "mpnet"), "multi_head", "sliding_window")
    assert said.endswith(f"so no variant can take its place as it can in {', '.join(REPLACEABLE)}.")


def test_what_raises_anything_else_is_left_to_its_trials(bert):
    def wants_numbers(stack):
        return next(stack.parameters()).sum().item()

    assert skeleton_of(bert).refusal(wants_numbers) is None


# -- planned -----------------------------------------------------------------------------------------------------------


def test_a_plan_leaves_out_what_one_of_its_models_refuses(tmp_path, bert):
    llama = originals.llama(tmp_path / "llama")
    found = planned(tmp_path, bert, llama, attention=["multi_head", "nystrom", "sliding_window"])
    assert ranges_of(found)["attention/kind"].options == ("multi_head", "sliding_window")
    assert any(note.startswith(f"left out: nystrom cannot stand in {llama}") for note in found.notes)


def test_a_variant_that_sees_the_past_alone_is_searched_in_a_causal_model(tmp_path):
    llama = originals.llama(tmp_path / "llama")
    found = planned(tmp_path, llama, attention=["retention", "multi_head"])
    assert ranges_of(found)["attention/kind"].options == ("retention", "multi_head")
    assert refused(llama, "moba") == []


@pytest.mark.parametrize(
    ("kind", "variant", "mode"), [(originals.bert, "moba", "bidirectional"), (originals.llama, "nystrom", "causal")]
)
def test_a_variant_that_looks_otherwise_than_a_model_is_refused_with_how_it_looks(tmp_path, kind, variant, mode):
    folder = kind(tmp_path / "model")
    told = rf"^{variant} cannot stand in {folder}: '{variant}' cannot be used in {mode} mode\. Add one that can"
    with pytest.raises(BadInput, match=told):
        planned(tmp_path, folder, attention=[variant])


def test_a_plan_refuses_a_model_before_anything_is_written(tmp_path):
    folder = mpnet(tmp_path / "mpnet")
    with pytest.raises(BadInput, match="MPNetModel computes its attention by itself"):
        planned(tmp_path, folder, attention=["sliding_window"])
    assert [each.name for each in tmp_path.iterdir()] == ["mpnet"]
    assert planned(tmp_path, folder).spec["space_name"] == "pretrained.toml"


def test_a_plan_leaves_out_tunings_that_find_nothing_to_change(tmp_path):
    found = planned(tmp_path, gpt2(tmp_path / "gpt2"))
    assert ranges_of(found)["tuning/kind"].options == ("full", "top_layers")
    assert any(note.startswith("left out: lora does not suit ") for note in found.notes)


def test_where_no_tuning_is_left_the_model_is_refused(tmp_path):
    (tmp_path / "space.toml").write_text('[plugins]\nattention = ["multi_head"]\ntuning = ["lora", "ia3"]\n')
    with pytest.raises(BadInput, match="GPT2Model has no"):
        planned(tmp_path, gpt2(tmp_path / "gpt2"), space=str(tmp_path / "space.toml"))


def test_no_more_top_layers_are_searched_than_the_deepest_model_has(tmp_path, bert):
    assert ranges_of(planned(tmp_path, bert))["tuning/top_layers/layers"].high == 3
    deep = originals.bert(tmp_path / "deep", num_hidden_layers=5)
    assert ranges_of(planned(tmp_path, bert, deep))["tuning/top_layers/layers"].high == 5


def test_a_plan_says_how_many_texts_are_cut_where_pieces_of_words_are_read(tmp_path, bert):
    asked = ["train=" + str(tmp_path / "long.csv")]
    texts = [f"{'good ' * 70}{at},good" for at in range(4)] + [f"bad {at},bad" for at in range(20)]
    texts += [f"good {at},good" for at in range(20)]
    (tmp_path / "long.csv").write_text("\n".join(["text,label", *texts]))
    (note,) = [
        each for each in planned(tmp_path, bert, task="text_classification", data=asked).notes if "tokens" in each
    ]
    assert note.startswith("3 of 40 texts fill the 64 tokens that are read of each, or are cut there")


# -- what the bundled space does where attention is replaced -----------------------------------------------------------


def test_recipes_have_softmax_and_nothing_beside_it(tmp_path, bert):
    asked = ["sliding_window", "multi_head", "learned_temperature"]
    found = planned(tmp_path, bert, attention=asked)
    for recipe in Space.from_json(found.spec["space"]).recipes:
        assert recipe["attention/kind"] == "multi_head"
        assert recipe["attention/learned_temperature/use"] is False
        assert recipe["technique/healing/use"] is False
    assert ranges_of(found)["placement/hybrid/kind"].options == ("multi_head",)


def test_what_is_learned_begins_where_it_changes_nothing(tmp_path, bert):
    found = planned(tmp_path, bert, attention=["multi_head", "learned_temperature", "adaptive_span", "sink"])
    fixed = Space.from_json(found.spec["space"]).fixed
    assert fixed["attention/learned_temperature/start"] == 0.0
    assert fixed["attention/adaptive_span/start"] == 1.0
    assert "attention/sink/start" not in fixed, "its range has no such value"
