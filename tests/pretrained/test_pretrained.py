"""Models that others trained: what they compute is what transformers computes, and nothing of theirs is run."""

import json
import re
import shutil

import originals
import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file
from tiny_texts import rows
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

import deepmine_auto
from deepmine_auto import inject
from deepmine_auto.classification import TextPrepared
from deepmine_auto.errors import BadInput
from deepmine_auto.host import the_host
from deepmine_auto.model.multi_head import token_mixer
from deepmine_auto.planning.plan import plan
from deepmine_auto.planning.request import Request
from deepmine_auto.pretrained.files import folder_of, original_of, pinned, weights_of
from deepmine_auto.pretrained.stack import PretrainedStack
from deepmine_auto.searching import resume
from deepmine_auto.space import Space
from deepmine_auto.storage.place import place_of, read
from deepmine_auto.study.spaces import Spaces
from deepmine_plugins.attention.multi_head import MultiHead
from deepmine_plugins.backbones.pretrained import Pretrained
from deepmine_plugins.tasks.text_classification import OwnTexts


def gpt2(folder):
    """A GPT-2, which says under another name how many positions it has."""
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(vocab_size=len(originals.WORDS), n_positions=64, n_embd=16, n_layer=2, n_head=2)
    return originals._saved(folder, GPT2Model, config, originals.word_pieces())


def squeezebert(folder):
    """A SqueezeBERT, which pools without a look whether there is something to pool with."""
    from transformers import SqueezeBertConfig, SqueezeBertModel

    sizes = {"embedding_size": 16, "max_position_embeddings": 64, **originals.SIZES}
    config = SqueezeBertConfig(vocab_size=len(originals.WORDS), **sizes)
    return originals._saved(folder, SqueezeBertModel, config, originals.word_pieces())


def layoutlm(folder):
    """A LayoutLM, which pools as SqueezeBERT does."""
    from transformers import LayoutLMConfig, LayoutLMModel

    sizes = {"max_position_embeddings": 64, "max_2d_position_embeddings": 8, **originals.SIZES}
    return originals._saved(
        folder, LayoutLMModel, LayoutLMConfig(vocab_size=len(originals.WORDS), **sizes), originals.word_pieces()
    )


def big_bird(folder):
    """A BigBird that looks at all of a text."""
    from transformers import BigBirdConfig, BigBirdModel

    sizes = {"max_position_embeddings": 64, "attention_type": "original_full", **originals.SIZES}
    config = BigBirdConfig(vocab_size=len(originals.WORDS), pad_token_id=0, **sizes)
    return originals._saved(folder, BigBirdModel, config, originals.word_pieces())


def xlstm(folder):
    """An xLSTM, which goes from word to word and takes no mask."""
    from transformers import xLSTMConfig, xLSTMModel

    config = xLSTMConfig(vocab_size=len(originals.WORDS), hidden_size=16, num_hidden_layers=2, num_heads=2)
    return originals._saved(folder, xLSTMModel, config, originals.word_pieces())


KINDS = {
    "bert": originals.bert, "roberta": originals.roberta, "t5": originals.t5, "llama": originals.llama, "gpt2": gpt2,
    "squeezebert": squeezebert, "layoutlm": layoutlm, "big_bird": big_bird,
}  # fmt: skip


@pytest.fixture
def bert(tmp_path):
    return originals.bert(tmp_path / "bert")


def softmax(shape):
    return token_mixer(MultiHead(), [], shape)


def stack_of(folder):
    backbone = Pretrained(origin=str(folder))
    prepared = OwnTexts().prepare_for(rows(), backbone.original())
    stack = backbone.build(prepared, softmax)
    backbone.begin(stack)
    return prepared, stack.eval()


def built(bert, kind, dropout=0.1, **sizes):
    """A model of another architecture, of which there is no folder."""
    architecture = AutoConfig.for_model(kind, vocab_size=40, **sizes).to_dict()
    prepared = OwnTexts().prepare_for(rows(), original_of(str(bert))._replace(architecture=architecture))
    return PretrainedStack(prepared, softmax, dropout)


def batch_of(prepared, texts):
    ids = prepared.encode(texts)
    length = max(map(len, ids))
    tokens_BL = torch.tensor([each + [0] * (length - len(each)) for each in ids])
    keep_BL = torch.arange(length) < torch.tensor([[len(each)] for each in ids])
    return tokens_BL, keep_BL


# -- what it computes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_it_computes_what_transformers_computes_for_real_tokens(tmp_path, kind):
    folder = KINDS[kind](tmp_path / kind)
    prepared, stack = stack_of(folder)
    tokens_BL, keep_BL = batch_of(prepared, ["good day", "the cold road of my house", "tea"])
    padded_BL = tokens_BL.masked_fill(~keep_BL, stack.padding)
    theirs = AutoModel.from_pretrained(folder).eval()
    theirs = theirs.encoder if kind == "t5" else theirs
    with torch.inference_mode():
        expected = theirs(input_ids=padded_BL, attention_mask=keep_BL.long()).last_hidden_state
        torch.testing.assert_close(stack(tokens_BL, keep_BL).out[keep_BL], expected[keep_BL])


@pytest.mark.parametrize("kind", [*KINDS.values(), xlstm])
def test_padding_changes_nothing(tmp_path, kind):
    prepared, stack = stack_of(kind(tmp_path / "model"))
    tokens_BL, keep_BL = batch_of(prepared, ["good day", "the cold road of my house"])
    short = int(keep_BL[0].sum())
    with torch.inference_mode():
        alone = stack(tokens_BL[:1, :short], keep_BL[:1, :short]).out
        together = stack(tokens_BL, keep_BL).out[:1, :short]
    torch.testing.assert_close(alone, together)


def test_texts_become_the_ids_of_its_own_tokenizer(bert):
    prepared, _ = stack_of(bert)
    theirs = AutoTokenizer.from_pretrained(bert)
    texts = ["Good day, the SUNNY road", "", "zzz"]
    assert prepared.encode(texts) == [theirs(each)["input_ids"] for each in texts]


def test_techniques_know_its_unknown_word_and_its_marks(tmp_path, bert):
    prepared, _ = stack_of(bert)
    assert (prepared.unknown, prepared.marks) == (1, (2, 3))
    others, _ = stack_of(originals.roberta(tmp_path / "roberta"))
    assert (others.unknown, others.marks) == (3, (0, 2))


def test_a_special_token_in_a_text_is_text(bert):
    prepared, _ = stack_of(bert)
    assert prepared.encode(["[SEP] good"])[0].count(3) == 1


def test_long_texts_are_cut_to_what_it_has_positions_for_and_keep_their_end_mark(bert):
    prepared, _ = stack_of(bert)
    (ids,) = prepared.encode(["good " * 500])
    assert len(ids) == 64
    assert ids[-1] == 3


def test_a_model_whose_positions_begin_after_its_padding_reads_no_further_than_it_has_some(tmp_path):
    prepared, stack = stack_of(originals.roberta(tmp_path / "roberta"))
    tokens_BL, keep_BL = batch_of(prepared, ["good " * 500])
    assert tokens_BL.shape == (1, 64)
    assert stack(tokens_BL, keep_BL).out.isfinite().all()


def test_a_model_that_calls_its_positions_otherwise_reads_no_further_than_it_has_some(tmp_path):
    prepared, stack = stack_of(gpt2(tmp_path / "gpt2"))
    tokens_BL, keep_BL = batch_of(prepared, ["good " * 500])
    assert tokens_BL.shape == (1, 64)
    assert stack(tokens_BL, keep_BL).out.isfinite().all()


@pytest.mark.parametrize(
    ("architecture", "length"),
    [
        *(({"model_type": kind, "n_positions": 48}, 48) for kind in ("openai-gpt", "ctrl", "gptj", "codegen")),
        ({"model_type": "t5", "n_positions": 48}, 256),
        ({"model_type": "gpt2", "max_position_embeddings": 48}, 48),
        ({"model_type": "mpnet", "max_position_embeddings": 50, "pad_token_id": 1}, 48),
        ({"model_type": "llama", "max_position_embeddings": 48, "pad_token_id": 128_004}, 48),
        ({"model_type": "gpt_neo", "max_position_embeddings": 48, "pad_token_id": 50_256}, 48),
    ],
)
def test_as_many_tokens_are_read_as_an_architecture_has_positions_behind_those_of_padding(bert, architecture, length):
    original = original_of(str(bert))._replace(architecture=architecture)
    assert OwnTexts().prepare_for(rows(), original).max_len == length


def test_attention_dropout_is_off_and_the_other_is_as_asked(bert):
    stack = Pretrained(origin=str(bert), dropout=0.25).build(
        OwnTexts().prepare_for(rows(), original_of(str(bert))), softmax
    )
    config = stack.model.config
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.25, 0.0)


@pytest.mark.parametrize(
    ("kind", "sizes", "expected"),
    [
        ("modernbert", {**originals.SIZES, "pad_token_id": 0}, {"drop": 0.25}),
        ("gpt_neo", {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]]},
         {"attn_dropout": 0.0, "resid_dropout": 0.25, "dropout": 0.25, "drop": 0.25}),
    ],
)  # fmt: skip
def test_dropout_is_as_asked_whatever_an_architecture_calls_it(bert, kind, sizes, expected):
    modules = built(bert, kind, dropout=0.25, **sizes).named_modules()
    assert {name.rpartition(".")[2]: each.p for name, each in modules if isinstance(each, nn.Dropout)} == expected


def test_beginning_draws_no_random_number(bert):
    backbone = Pretrained(origin=str(bert))
    stack = backbone.build(OwnTexts().prepare_for(rows(), backbone.original()), softmax)
    before = torch.get_rng_state()
    backbone.begin(stack)
    assert torch.equal(torch.get_rng_state(), before)


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_what_is_no_folder_and_not_on_the_hub_is_told_in_a_sentence():
    with pytest.raises(BadInput, match=r"The model 'no/such-model' is no folder, and the hub did not give it"):
        pinned("no/such-model")


@pytest.mark.parametrize("path", ["/no/such", "./no-such"])
def test_a_path_that_leads_nowhere_is_not_asked_of_the_hub(path):
    with pytest.raises(BadInput, match=r"There is no folder .*no.such\. Check the path"):
        plan(Request(task="text_classification", data="moods.csv", backbone=path, trials=1), the_host())


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_what_the_cache_of_the_hub_lacks_is_fetched(bert, monkeypatch, name):
    whole = (bert / name).read_bytes()
    (bert / name).unlink()

    def snapshot_download(repository, local_files_only=False, **asked):
        if not local_files_only:
            (bert / name).write_bytes(whole)
        return str(bert)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert folder_of("somebody/bert") == bert
    assert (bert / name).read_bytes() == whole


def test_of_the_hub_nothing_is_fetched_that_is_not_read(bert, monkeypatch):
    asked = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **told: asked.append(told) or str(bert))
    folder_of("somebody/bert")
    read = ["config.json", "tokenizer.json", "model.safetensors", "model-00001-of-00002.safetensors"]
    other = ["consolidated.safetensors", "consolidated.00.safetensors", "unet/model.safetensors", "onnx/config.json"]
    patterns = {name: each for name, each in asked[0].items() if name.endswith("_patterns")}
    assert [*filter_repo_objects([*read, *other, "pytorch_model.bin"], **patterns)] == read


def test_a_whole_cache_is_not_asked_of_the_hub_again(bert, monkeypatch):
    asked = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **told: asked.append(told) or str(bert))
    assert folder_of("somebody/bert") == bert
    assert [each["local_files_only"] for each in asked] == [True]


def hub_without(error):
    """A hub that raises, and of which nothing is cached."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    def snapshot_download(repository, local_files_only=False, **asked):
        raise LocalEntryNotFoundError("nothing is cached") if local_files_only else error

    return snapshot_download


@pytest.mark.parametrize("kind", ["ProxyError", "ConnectError", "ReadTimeout", "RemoteProtocolError"])
def test_a_hub_that_cannot_be_reached_is_told_in_a_sentence(monkeypatch, kind):
    from huggingface_hub.utils import httpx

    monkeypatch.setattr("huggingface_hub.snapshot_download", hub_without(getattr(httpx, kind)("the line is cut.\nSee")))
    with pytest.raises(BadInput, match=r"'some/bert' is no folder, and the hub did not give it: the line is cut\. "):
        pinned("some/bert")


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("GatedRepoError", r"it is gated\. Accept its licence on its page there, and log in here: `hf auth login`\.$"),
        ("RepositoryNotFoundError", r"it shows you none of this name\. Check the name, or .* `hf auth login`\.$"),
    ],
)
def test_what_the_hub_does_not_show_to_everybody_is_told_with_how_to_be_let_in(monkeypatch, kind, told):
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    answer = httpx.Response(401, request=httpx.Request("GET", "https://the.hub/some/bert"))
    error = getattr(errors, kind)("401 Client Error. (Request ID: x)\n\nCannot access it.", response=answer)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub_without(error))
    with pytest.raises(BadInput, match=rf"^The model 'some/bert' is no folder, and the hub did not give it: {told}"):
        folder_of("some/bert")


def test_a_line_that_is_cut_while_weights_come_is_told_in_a_sentence(monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub_without(RuntimeError("CAS service error")))
    with pytest.raises(BadInput, match=r"the hub did not give it: CAS service error\. Check the name"):
        folder_of("some/bert")


def test_an_error_of_the_hub_that_says_nothing_is_told_by_its_name(monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub_without(TimeoutError()))
    with pytest.raises(BadInput, match=r"the hub did not give it: TimeoutError\. Check the name"):
        folder_of("some/bert")


@pytest.mark.parametrize(("name", "asked"), [("some/bert", "some/bert"), ("some/bert@v1", "some/bert --revision v1")])
def test_a_hub_that_cannot_be_reached_is_told_with_how_to_fetch_the_model_elsewhere(monkeypatch, name, asked):
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub_without(ConnectionError("no route")))
    command = f"`hf download {asked} --local-dir FOLDER`"
    with pytest.raises(BadInput, match=f"fetch it where there is a network, {command}, and give that folder"):
        folder_of(name)


def test_what_can_be_no_name_of_the_hub_is_not_to_be_fetched_from_there():
    with pytest.raises(BadInput, match=r"where/bert' is no folder, .*\. Check the path, or give a name of the hub\.$"):
        folder_of("some/where/bert")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_missing_file_is_named(bert, name):
    (bert / name).unlink()
    with pytest.raises(BadInput, match=f"has no {name}"):
        original_of(str(bert))


def unpickled(folder):
    """Leave the weights as a pickle, and the vocabulary as a list of words."""
    torch.save(originals.weights(folder), folder / "pytorch_model.bin")
    (folder / "vocab.txt").write_text("\n".join(originals.WORDS))
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).unlink()


def test_weights_that_must_be_unpickled_are_not_read(bert):
    (bert / "model.safetensors").rename(bert / "pytorch_model.bin")
    told = r"has no model\.safetensors\. Where .* `AutoModel\.from_pretrained\(MODEL\)\.save_pretrained\(FOLDER\)`"
    with pytest.raises(BadInput, match=told):
        plan(Request(task="text_classification", data="moods.csv", backbone=str(bert), trials=1), the_host())


def test_a_model_without_tokenizer_json_is_told_what_writes_it(bert):
    (bert / "tokenizer.json").unlink()
    told = r"has no tokenizer\.json\. .* `AutoTokenizer\.from_pretrained\(MODEL\)\.save_pretrained\(FOLDER\)` writes it"
    with pytest.raises(BadInput, match=told):
        plan(Request(task="text_classification", data="moods.csv", backbone=str(bert), trials=1), the_host())


def test_what_an_old_model_lacks_is_written_as_it_is_told(tmp_path, bert):
    given = originals.weights(bert)
    unpickled(bert)
    for kind in (AutoModel, AutoTokenizer):
        kind.from_pretrained(bert).save_pretrained(tmp_path / "again")
    prepared, stack = stack_of(tmp_path / "again")
    own = stack.model.state_dict()
    assert all(torch.equal(each, given[name]) for name, each in own.items())
    assert prepared.encode(["good day"]) == [[2, *(originals.WORDS.index(each) for each in ("good", "day")), 3]]


def sharded(folder):
    """Leave the weights in two files, and an index that names them."""
    given = originals.weights(folder)
    parts = {"model-1.safetensors": sorted(given)[::2], "model-2.safetensors": sorted(given)[1::2]}
    for name, keys in parts.items():
        save_file({key: given[key] for key in keys}, folder / name, {"format": "pt"})
    (folder / "model.safetensors").unlink()
    named = {key: name for name, keys in parts.items() for key in keys}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": named}))


def test_weights_in_several_files_are_all_of_them_and_of_a_whole_file_beside_them_that_one_is_read(bert):
    given, name = originals.weights(bert), "encoder.layer.0.output.dense.weight"
    sharded(bert)
    assert [each.name for each in weights_of(bert)] == ["model-1.safetensors", "model-2.safetensors"]
    _, stack = stack_of(bert)
    assert torch.equal(stack.model.get_parameter(name), given[name])
    originals.write_weights(bert, {key: each + 1.0 for key, each in given.items()})
    assert [each.name for each in weights_of(bert)] == ["model.safetensors"]
    _, stack = stack_of(bert)
    assert torch.equal(stack.model.get_parameter(name), given[name] + 1.0), "it is what transformers reads"


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": 3}', "\N{LATIN SMALL LETTER E WITH ACUTE}"])
def test_an_index_that_is_damaged_is_told_in_a_sentence(bert, text):
    (bert / "model.safetensors").unlink()
    (bert / "model.safetensors.index.json").write_text(text, encoding="latin-1")
    with pytest.raises(BadInput, match=r"index\.json does not say which files hold the weights\. Download the model"):
        weights_of(bert)


@pytest.mark.parametrize("changed", [{}, {"metadata": None}, {"metadata": []}])
def test_an_index_without_the_metadata_that_transformers_reads_is_refused(bert, changed):
    sharded(bert)
    index = bert / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": json.loads(index.read_text())["weight_map"], **changed}))
    with pytest.raises(BadInput, match=r'index\.json lacks its metadata\. Write "metadata": \{\} into it, or download'):
        weights_of(bert)


def test_a_config_that_is_cut_off_is_downloaded_again_and_no_bundle_is_exported(bert):
    (bert / "config.json").write_text("{")
    with pytest.raises(BadInput, match=r"config\.json cannot be read: .*\. Download the model again\.$"):
        original_of(str(bert))


@pytest.mark.parametrize("nested", [False, True])
def test_a_config_that_asks_to_run_code_is_refused(bert, nested):
    asks = {"auto_map": {"AutoModel": "evil.Evil"}}
    originals.rewrite(bert / "config.json", **({"text_config": asks} if nested else asks))
    with pytest.raises(BadInput, match="asks to run code of its own"):
        original_of(str(bert))


def test_a_strangers_bundle_cannot_ask_for_code_either(bert):
    original = original_of(str(bert))
    asks = {**original.architecture, "auto_map": {"AutoModel": "evil.Evil"}}
    prepared = OwnTexts().prepare_for(rows(), original._replace(architecture=asks))
    with pytest.raises(BadInput, match="asks to run code of its own"):
        PretrainedStack(prepared, softmax, 0.1)


def test_what_would_run_a_model_is_not_taken_from_its_config(bert):
    originals.rewrite(bert / "config.json", _attn_implementation="kernels-community/evil", attn_implementation="evil/x")
    assert not [each for each in original_of(str(bert)).architecture if "attn_implementation" in each]


def test_other_files_of_weights_than_those_that_were_looked_at_are_not_read(bert):
    originals.rewrite(bert / "config.json", transformers_weights="adapter_model.bin")
    (bert / "adapter_model.bin").write_bytes(b"a pickle")
    assert "transformers_weights" not in original_of(str(bert)).architecture
    _, stack = stack_of(bert)
    own = originals.weights(bert)["encoder.layer.0.output.dense.weight"]
    assert torch.equal(stack.model.encoder.layer[0].output.dense.weight, own)


def test_a_quantised_model_is_refused(bert):
    originals.rewrite(bert / "config.json", quantization_config={"quant_method": "fp8"})
    with pytest.raises(BadInput, match=r"The model in .*bert is quantised\. Give the model in full precision"):
        original_of(str(bert))


def test_an_adapter_beside_the_model_is_refused(bert):
    _, stack = stack_of(bert)
    (bert / "adapter_config.json").write_text("{}")
    for refused in (lambda: weights_of(bert), lambda: stack.take_weights(str(bert))):
        with pytest.raises(BadInput, match=r"bert holds an adapter beside the model\. Merge it into the model first"):
            refused()


def test_parts_of_a_distributed_checkpoint_are_refused_because_they_would_be_read_unseen(bert):
    _, stack = stack_of(bert)
    part = "shard-00001-model-00001-of-00001.safetensors"
    save_file({name: each + 1.0 for name, each in originals.weights(bert).items()}, bert / part, {"format": "pt"})
    told = rf"holds parts of a distributed checkpoint, such as {part}, which would be read instead\. Consolidate them"
    for refused in (lambda: weights_of(bert), lambda: stack.take_weights(str(bert))):
        with pytest.raises(BadInput, match=told):
            refused()


def test_weights_that_come_under_other_names_are_missed(bert, monkeypatch):
    from transformers import BertModel

    read = BertModel.from_pretrained

    def adapted(*args, **options):
        found, told = read(*args, **options)
        inject("LoraConfig", found, target_modules=["query"])
        return found, told

    monkeypatch.setattr(BertModel, "from_pretrained", adapted)
    with pytest.raises(BadInput, match=r"lack 6 that the model needs, such as 'encoder\.layer\.0\.attention"):
        stack_of(bert)


@pytest.mark.parametrize("kind", ["mystery", ["bert"], None])
def test_an_architecture_that_nobody_knows_is_refused(bert, kind):
    originals.rewrite(bert / "config.json", model_type=kind)
    with pytest.raises(BadInput, match=f"names the architecture {re.escape(repr(kind))}"):
        original_of(str(bert))


@pytest.mark.parametrize("kind", ["deepmine_auto", "deepmine_auto_ensemble"])
def test_a_bundle_is_no_model_to_train_on_and_the_one_it_was_made_from_is_named(bert, kind):
    params = {"model/kind": "pretrained", "model/pretrained/origin": "some/bert@v1"}
    originals.rewrite(bert / "config.json", model_type=kind, deepmine={"task": "sentiment", "params": params})
    (bert / "tokenizer.json").unlink()
    told = r"a bundle, which is trained no further\. Begin with the model .*, --backbone some/bert@v1, or what its"
    with pytest.raises(BadInput, match=told):
        original_of(str(bert))


@pytest.mark.parametrize("ours", [{}, {"deepmine": {"params": {"model/kind": "encoder"}}}, {"deepmine": ["x"]}])
def test_a_bundle_that_was_made_from_nothing_is_named_with_the_way_to_what_its_study_found(bert, ours):
    originals.rewrite(bert / "config.json", model_type="deepmine_auto", **ours)
    with pytest.raises(BadInput, match=r"trained no further\. Begin with what its study found: --warm-start STUDY\.$"):
        original_of(str(bert))


@pytest.mark.parametrize("kind", ["vit", "wav2vec2"])
def test_a_model_that_reads_no_text_is_refused(bert, kind):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    original = original_of(str(bert))._replace(architecture=AutoConfig.for_model(kind, **sizes).to_dict())
    prepared = OwnTexts().prepare_for(rows(), original)
    with pytest.raises(BadInput, match=f"architecture '{kind}' reads no text"):
        PretrainedStack(prepared, softmax, 0.1)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("fnet", {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16}),
        ("cpmant", {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "dim_head": 8, "dim_ff": 16}),
    ],
)
def test_a_model_that_cannot_be_told_what_is_padding_is_refused(bert, kind, sizes):
    told = rf"architecture '{kind}' cannot be told what is padding, .*\. Choose one that takes an attention mask"
    with pytest.raises(BadInput, match=told):
        built(bert, kind, **sizes)


def test_a_model_that_looks_at_blocks_of_a_text_until_it_reads_a_short_one_is_refused(bert):
    told = r"'big_bird' looks at blocks of a text only until .*\. Write \"attention_type\": \"original_full\" into"
    with pytest.raises(BadInput, match=told):
        built(bert, "big_bird", **originals.SIZES)


def test_a_model_that_is_made_of_several_is_refused(bert):
    prepared = OwnTexts().prepare_for(rows(), original_of(str(bert))._replace(architecture={"model_type": "clip"}))
    with pytest.raises(
        BadInput, match=r"'clip' does not say how long its vectors are\. Choose a model that reads text"
    ):
        PretrainedStack(prepared, softmax, 0.1)


def test_padding_that_is_no_token_counts_as_none(tmp_path):
    folder = originals.llama(tmp_path / "llama")
    originals.rewrite(folder / "config.json", pad_token_id=-1)
    prepared, stack = stack_of(folder)
    assert prepared.padding == "[PAD]"
    tokens_BL, keep_BL = batch_of(prepared, ["good day", "the cold road of my house"])
    assert stack(tokens_BL, keep_BL).out.isfinite().all()


def test_weights_of_other_sizes_than_the_config_tells_are_refused(bert):
    originals.rewrite(bert / "config.json", intermediate_size=64)
    with pytest.raises(BadInput, match=r"are not those of the model in its config\.json .*Download the model again"):
        stack_of(bert)


def test_weights_that_are_cut_off_are_refused(bert):
    whole = (bert / "model.safetensors").read_bytes()
    (bert / "model.safetensors").write_bytes(whole[:-8])
    with pytest.raises(BadInput, match=r"are not those of the model in its config\.json .*Download the model again"):
        stack_of(bert)


def test_weights_that_lack_a_part_are_refused(bert):
    weights = load_file(bert / "model.safetensors")
    kept = {name: each for name, each in weights.items() if "layer.2.output" not in name}
    save_file(kept, bert / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadInput, match=r"lack \d+ that the model needs, such as 'encoder\.layer\.2\.output"):
        stack_of(bert)


@pytest.mark.parametrize(
    ("part", "node", "why"),
    [
        ("normalizer", {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}, "unknown pattern"),
        ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Removed", "invert": False},
         "unknown pattern"),
        ("normalizer", {"type": "Sequence", "normalizers": [{"type": "Custom"}]}, "unknown part 'Custom'"),
    ],
)  # fmt: skip
def test_a_tokenizer_that_may_hang_is_refused(bert, part, node, why):
    originals.rewrite(bert / "tokenizer.json", **{part: node})
    with pytest.raises(BadInput, match=why):
        original_of(str(bert))


def test_a_task_that_reads_no_texts_takes_no_pretrained_model(bert):
    with pytest.raises(BadInput, match="'associative_recall' cannot be learned by a pretrained model"):
        plan(Request(task="associative_recall", backbone=str(bert), trials=1), the_host())


def test_a_variant_with_projections_of_its_own_is_left_out(tmp_path, bert):
    asked = ["multi_head", "synthesizer"]
    found = plan(Request(backbone=str(bert), attention=asked, trials=1, storage=str(tmp_path / "s.db")), the_host())
    assert "left out: synthesizer has projections of its own, and so has a pretrained model" in found.notes


def test_the_backbone_without_a_model_is_refused():
    with pytest.raises(
        BadInput, match=r"does not say 'model/pretrained/origin'\. Give --backbone the folder of a model"
    ):
        plan(Request(space="pretrained", trials=1), the_host())


# -- searched ----------------------------------------------------------------------------------------------------------


def test_the_bundled_space_holds_its_own_recipes(tmp_path, bert):
    found = plan(Request(backbone=str(bert), trials=1, storage=str(tmp_path / "s.db")), the_host())
    space = Space.from_json(found.spec["space"])
    assert [each["tuning/kind"] for each in space.recipes] == ["full", "full", "lora"]
    assert all(each["optimizer/adamw/lr"] for each in space.recipes)


@pytest.mark.parametrize(("asked", "heals"), [((), False), (("multi_head",), False), (("multi_head", "sigmoid"), True)])
def test_the_bundled_space_heals_where_attention_is_replaced(tmp_path, bert, asked, heals):
    request = Request(backbone=str(bert), attention=asked, trials=1, storage=str(tmp_path / "s.db"))
    params = Space.from_json(plan(request, the_host()).spec["space"]).params
    assert ("technique/healing/use" in [each.name for each in params]) == heals


def test_a_space_of_ones_own_heals_only_if_it_says_so(tmp_path, bert):
    (tmp_path / "space.toml").write_text(SURGEON.format(tuning="full").replace('technique = ["healing"]\n', "").replace(
        '"technique/healing/use" = true\n', ""))  # fmt: skip
    request = Request(backbone=str(bert), space=str(tmp_path / "space.toml"), trials=1, storage=str(tmp_path / "s.db"))
    params = Space.from_json(plan(request, the_host()).spec["space"]).params
    assert "technique/healing/use" not in [each.name for each in params]


def test_several_models_are_a_searched_choice(tmp_path):
    folders = [str(originals.bert(tmp_path / name)) for name in ("one", "two")]
    found = plan(Request(backbone=folders, trials=1, storage=str(tmp_path / "s.db")), the_host())
    origin = next(each for each in Space.from_json(found.spec["space"]).params if each.name.endswith("/origin"))
    assert origin.range.options == tuple(folders)


@pytest.fixture
def moods(tmp_path):
    made = rows()
    lines = [f'"{text}",{label}' for text, label in zip(made.inputs, made.labels, strict=True)]
    (tmp_path / "moods.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    return tmp_path / "moods.csv"


def searched(tmp_path, moods, bert, **asked):
    options = {"executor": "inline", "storage": str(tmp_path / "s.db"), "trials": 2, **asked}
    return deepmine_auto.search(task="text_classification", data=str(moods), backbone=str(bert), **options)


@pytest.mark.slow
def test_a_search_leaves_a_bundle_that_needs_the_model_no_more(tmp_path, bert, moods):
    result = searched(tmp_path, moods, bert)
    bert.rename(tmp_path / "away")
    bundle = deepmine_auto.load(result.bundle)
    assert set(bundle.predict("good day")[0]) == {"label", "probability", "probabilities"}
    assert json.loads((bundle.folder / "prepared.json").read_text())["architecture"]["model_type"] == "bert"
    assert isinstance(bundle.prepared, TextPrepared)


SURGEON = """
[plugins]
attention = ["sliding_window", "learned_temperature"]
backbone = ["pretrained"]
tuning = ["{tuning}"]
optimizer = ["adamw"]
technique = ["healing"]
[ranges]
"attention/learned_temperature/use" = true
"technique/healing/use" = true
"training/epochs" = 2
"training/batch" = 32
"optimizer/adamw/lr" = 1e-3
"data/tokens" = "subword"
"""


@pytest.mark.slow
@pytest.mark.parametrize("tuning", ["lora", "houlsby"])
def test_surgery_and_what_was_learned_beside_stand_in_the_bundle(tmp_path, bert, moods, tuning):
    import deepmine_auto.hf

    (tmp_path / "space.toml").write_text(SURGEON.format(tuning=tuning))
    result = searched(tmp_path, moods, bert, space=str(tmp_path / "space.toml"), trials=1)
    bundle = deepmine_auto.load(result.bundle)
    names = [name for name, _ in bundle.model.named_parameters()]
    assert any("deepmine.mixing" in name for name in names)
    assert any("base_layer" in name for name in names) == (tuning == "houlsby")
    params = json.loads((bundle.folder / "config.json").read_text())["deepmine"]["params"]
    assert ("tuning/kind" in params) == (tuning == "houlsby")
    theirs = AutoModelForSequenceClassification.from_pretrained(result.bundle).state_dict()
    assert all(torch.equal(theirs[name], each) for name, each in bundle.model.state_dict().items())


@pytest.mark.slow
def test_transformers_reads_texts_as_the_bundle_does(tmp_path, bert, moods):
    import deepmine_auto.hf

    result = searched(tmp_path, moods, bert, trials=1)
    ours, theirs = deepmine_auto.load(result.bundle), AutoTokenizer.from_pretrained(result.bundle)
    texts = ["good [SEP] day", "", "the cold road of my house"]
    assert theirs(texts)["input_ids"] == ours.prepared.encode(texts)
    assert theirs.pad_token_id == 0


@pytest.mark.slow
def test_a_study_goes_on_in_another_space_with_the_same_models(tmp_path, bert, moods):
    searched(tmp_path, moods, bert, study="one", trials=1)
    resume("one", str(tmp_path / "s.db"), trials=2, attention=["sliding_window"])
    store = read(place_of(str(tmp_path / "s.db")))
    _, second = store.trials(store.study("one").id)
    params = Spaces.of(store, store.study("one")).complete(1, second.params)
    assert (params["attention/kind"], params["model/pretrained/origin"]) == ("sliding_window", str(bert))


@pytest.mark.slow
def test_a_study_does_not_go_on_with_another_model_in_the_same_folder(tmp_path, bert, moods):
    searched(tmp_path, moods, bert, study="one", trials=1)
    weights = bert / "model.safetensors"
    changed = {name: each + 0.1 for name, each in load_file(weights).items()}
    save_file(changed, weights, {"format": "pt"})
    with pytest.raises(BadInput, match=r"bert is not the one that the study 'one' began with"):
        resume("one", str(tmp_path / "s.db"), trials=2)
    shutil.rmtree(bert)
    with pytest.raises(BadInput, match=r"bert is not the one that the study 'one' began with"):
        resume("one", str(tmp_path / "s.db"), trials=2)
