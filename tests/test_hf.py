"""transformers gives what `load` gives after `import deepmine_auto.hf`, and nothing without it."""

import subprocess
import sys
from functools import cache

import originals
import pytest
import tiny
import torch
from tiny_texts import rows
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, pipeline

import deepmine_auto
import deepmine_auto.hf
from deepmine_auto import hf
from deepmine_auto.errors import BadInput
from deepmine_auto.host import the_host
from deepmine_auto.model.assemble import build_model
from deepmine_auto.pretrained.files import original_of
from deepmine_plugins.tasks.text_classification import OwnTexts

TEXTS = ["so good :)", "awful [PAD] thing [UNK]", "", "word " * 600, "x" * 30_000, "I can't even"]
AUTOS = (AutoConfig, AutoTokenizer, AutoModelForSequenceClassification)


@cache
def bundle():
    return deepmine_auto.load(tiny.bundle())


def test_logits_are_those_of_the_bundle():
    tokenizer = AutoTokenizer.from_pretrained(tiny.bundle())
    model = AutoModelForSequenceClassification.from_pretrained(tiny.bundle())
    with torch.no_grad():
        logits = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    torch.testing.assert_close(logits, torch.from_numpy(bundle().outputs(TEXTS)), atol=1e-6, rtol=0)


def test_a_model_is_on_the_cpu_until_somebody_moves_it(monkeypatch):
    """As any of transformers is; our own `load` takes the GPU."""
    moved, load = [], hf.load

    def loaded(folder):
        found = load(folder)
        plain = found.model.cpu
        monkeypatch.setattr(type(found.model), "cpu", lambda model: moved.append(model) or plain(), raising=False)
        return found

    monkeypatch.setattr(hf, "load", loaded)
    hf.DeepmineForSequenceClassification.from_pretrained(bundle().folder)
    assert len(moved) == 1


@pytest.mark.parametrize("size", [1, 4])
def test_a_pipeline_answers_as_the_bundle_does(size):
    found = pipeline("text-classification", model=str(tiny.bundle()))(TEXTS, batch_size=size)
    expected = bundle().predict(TEXTS)
    assert [each["label"] for each in found] == [each["label"] for each in expected]
    assert [each["score"] for each in found] == pytest.approx([each["probability"] for each in expected], abs=1e-6)


def test_the_tokenizer_gives_the_ids_of_the_bundle_and_cuts_by_itself():
    tokenizer = AutoTokenizer.from_pretrained(tiny.bundle())
    assert tokenizer(TEXTS)["input_ids"] == bundle().prepared.encode(TEXTS)
    assert tokenizer.model_max_length == 256
    assert tokenizer.pad_token_id == 0
    assert tokenizer("so good") == {"input_ids": bundle().prepared.encode(["so good"])[0], "attention_mask": [1, 1]}
    assert tokenizer("so good", padding="max_length", max_length=4)["attention_mask"] == [1, 1, 0, 0]


def test_a_pair_of_texts_is_refused():
    with pytest.raises(BadInput, match="text pair"):
        AutoTokenizer.from_pretrained(tiny.bundle())("a", "b")


def test_words_are_not_taken_for_texts():
    with pytest.raises(BadInput, match=r"Words were given, and this model reads whole texts\. Join them with blanks"):
        AutoTokenizer.from_pretrained(tiny.bundle())(["so", "good"], is_split_into_words=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16"])
def test_weights_are_cast_as_asked(dtype):
    model = AutoModelForSequenceClassification.from_pretrained(tiny.bundle(), dtype=dtype)
    assert {each.dtype for each in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("dtype", ["nonsense", "int8", "nn", torch.int64, 16])
def test_what_weights_cannot_be_cast_to_is_refused(dtype):
    with pytest.raises(BadInput, match=r"cannot be loaded as .*\. Give float32, float16 or bfloat16\."):
        deepmine_auto.hf.DeepmineForSequenceClassification.from_pretrained(tiny.bundle(), dtype=dtype)


def test_the_weights_keep_their_names():
    model = AutoModelForSequenceClassification.from_pretrained(tiny.bundle())
    assert model.state_dict().keys() == bundle().model.state_dict().keys()
    assert (model.config.id2label, model.config.label2id["positive"]) == ({0: "negative", 1: "positive"}, 1)


@pytest.mark.parametrize("put_in", [{"tuning/kind": "houlsby"}, {"attention/query_temperature/use": True}])
def test_what_was_put_into_a_pretrained_model_is_not_drawn_again(tmp_path, put_in):
    folder, task = str(originals.bert(tmp_path / "bert")), OwnTexts()
    params = {"attention/kind": "multi_head", "model/kind": "pretrained", "model/pretrained/origin": folder, **put_in}
    model = build_model(params, task, task.prepare_for(rows(), original_of(folder)), the_host())
    before = {name: each.clone() for name, each in model.state_dict().items()}
    config = AutoConfig.from_pretrained(tiny.bundle())
    after = deepmine_auto.hf.DeepmineForSequenceClassification(config, model).state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], each) for name, each in before.items())


def gpt2(folder):
    """A GPT-2, which has no token for padding: its token 0 is a word."""
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(vocab_size=len(originals.WORDS), n_positions=64, n_embd=16, n_layer=2, n_head=2)
    return originals._saved(folder, GPT2Model, config, originals.word_pieces())


@pytest.mark.parametrize(("kind", "keep"), [(gpt2, [1, 1, 1]), (originals.bert, [0, 1, 1])])
def test_without_a_mask_token_0_is_padding_only_where_the_pretrained_model_has_a_token_for_it(tmp_path, kind, keep):
    folder, task = str(kind(tmp_path / "model")), OwnTexts()
    params = {"attention/kind": "multi_head", "model/kind": "pretrained", "model/pretrained/origin": folder}
    built = build_model(params, task, task.prepare_for(rows(), original_of(folder)), the_host())
    model = deepmine_auto.hf.DeepmineForSequenceClassification(AutoConfig.from_pretrained(tiny.bundle()), built).eval()
    ids_BL = torch.tensor([[0, 5, 6]])
    with torch.no_grad():
        expected = model(ids_BL, attention_mask=torch.tensor([keep])).logits
        torch.testing.assert_close(model(ids_BL).logits, expected)


def test_labels_add_the_cross_entropy():
    model = AutoModelForSequenceClassification.from_pretrained(tiny.bundle())
    loss, logits = model(torch.tensor([[3, 4]]), labels=torch.tensor([1]), return_dict=False)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, torch.tensor([1])))


@pytest.mark.parametrize("auto", AUTOS)
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_changed_file_is_refused_on_this_road_too(tmp_path, auto, name):
    folder = tiny.copy(tmp_path)
    with open(folder / name, "ab") as opened:
        opened.write(b" ")
    with pytest.raises(BadInput, match=f"{name} was changed after the bundle was made"):
        auto.from_pretrained(folder)


def test_options_that_would_change_the_weights_are_refused():
    with pytest.raises(BadInput, match="cannot be loaded with device_map"):
        AutoModelForSequenceClassification.from_pretrained(tiny.bundle(), device_map="auto")
    with pytest.raises(BadInput, match="A configuration alone makes no model"):
        AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(tiny.bundle()))


def test_without_the_import_transformers_says_that_it_does_not_know_the_architecture():
    code = "import sys, transformers; transformers.AutoConfig.from_pretrained(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, tiny.bundle()], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "does not recognize this architecture" in done.stderr
