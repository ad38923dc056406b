"""`examples/002_back_translation.py` writes what a search reads: with tiny models of random weights, whose words mean
nothing."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_texts import rows
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from deepmine_auto.data.paraphrases import read_paraphrases

EXAMPLE = Path(__file__).parents[2] / "examples" / "002_back_translation.py"


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    """A folder with an encoder-decoder and its tokenizer."""
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    words = ["<pad>", "</s>", "<unk>", *sorted({word for text in rows().inputs for word in text.split()})]
    tokenizer = Tokenizer(WordLevel({word: at for at, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder = tmp_path_factory.mktemp("translator")
    named = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **named).save_pretrained(folder)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": len(words)}
    T5ForConditionalGeneration(T5Config(decoder_start_token_id=0, **sizes)).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_it_writes_pairs_that_a_search_can_learn_from(translator, tmp_path):
    inputs = rows(24).inputs
    with open(tmp_path / "rows.csv", "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([("said", "label"), *zip(inputs, "ab" * 12, strict=True)])
    command = [sys.executable, EXAMPLE, "rows.csv", "reworded.csv", "--there", translator, "--back", translator]
    command += ["--text-column", "said"]
    done = subprocess.run([*map(str, command)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = read_paraphrases(tmp_path / "reworded.csv", None, inputs, [])
    assert len(found) > 12
    assert f"{len(found)} paraphrases of {len(found)} texts in reworded.csv" in done.stdout
