"""Tiny models of transformers with random weights, as folders that a user could have."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tiny_texts import BAD, GOOD, PLAIN
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel
from tokenizers.processors import TemplateProcessing

SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
LISTED = {"emb_dim": 16, "n_layers": 3, "n_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *GOOD, *BAD, *PLAIN]


def bert(folder: Path, **changed: object) -> Path:
    """A BERT of three layers over the words of `tiny_texts`."""
    from transformers import BertConfig, BertModel

    config = BertConfig(**{"vocab_size": len(WORDS), "max_position_embeddings": 64, **SIZES, **changed})
    return _saved(folder, BertModel, config, word_pieces())


def roberta(folder: Path) -> Path:
    """A RoBERTa, whose padding is token 1 and whose positions begin after it."""
    from transformers import RobertaConfig, RobertaModel

    tokenizer = byte_pairs()
    vocabulary = tokenizer.get_vocab_size()
    config = RobertaConfig(vocab_size=vocabulary, max_position_embeddings=66, pad_token_id=1, **SIZES)
    return _saved(folder, RobertaModel, config, tokenizer)


def distilbert(folder: Path) -> Path:
    """A DistilBERT, which has names of its own for all sizes."""
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(
        vocab_size=len(WORDS), max_position_embeddings=64, dim=16, n_layers=3, n_heads=2, hidden_dim=32
    )
    return _saved(folder, DistilBertModel, config, word_pieces())


def t5(folder: Path) -> Path:
    """A T5, of which the encoder is used."""
    from transformers import T5Config, T5Model

    config = T5Config(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=3, num_heads=2)
    return _saved(folder, T5Model, config, word_pieces())


def llama(folder: Path) -> Path:
    """A Llama, whose tokens see the past alone."""
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(vocab_size=len(WORDS), max_position_embeddings=64, num_key_value_heads=1, **SIZES)
    return _saved(folder, LlamaModel, config, word_pieces())


def albert(folder: Path) -> Path:
    """An ALBERT, whose three layers are one."""
    from transformers import AlbertConfig, AlbertModel

    sizes = {"embedding_size": 16, "max_position_embeddings": 64, **SIZES}
    return _saved(folder, AlbertModel, AlbertConfig(vocab_size=len(WORDS), **sizes), word_pieces())


def deberta(folder: Path) -> Path:
    """A DeBERTa, whose blocks say tuples of two, the second None, and of which a convolution looks at the next word."""
    from transformers import DebertaV2Config, DebertaV2Model

    positions = {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]}
    sizes = {"vocab_size": len(WORDS), "max_position_embeddings": 64, "conv_kernel_size": 3}
    return _saved(folder, DebertaV2Model, DebertaV2Config(**sizes, **positions, **SIZES), word_pieces())


def xlm(folder: Path) -> Path:
    """An XLM, whose attentions, norms and feed-forward parts are lists of their own; its masks have two dimensions."""
    from transformers import XLMConfig, XLMModel

    return _saved(folder, XLMModel, XLMConfig(vocab_size=len(WORDS), **LISTED), word_pieces())


def word_pieces() -> Tokenizer:
    """BERT's kind of tokenizer."""
    tokenizer = Tokenizer(WordPiece({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = BertNormalizer(), BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.add_special_tokens(WORDS[:4])
    return tokenizer


def byte_pairs() -> Tokenizer:
    """RoBERTa's kind of tokenizer, of single bytes."""
    names = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet())]
    tokenizer = Tokenizer(BPE({name: at for at, name in enumerate(names)}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return tokenizer


def _saved(folder: Path, model: type, config: object, tokenizer: Tokenizer) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def rewrite(file: Path, **changed: object) -> None:
    """Change some keys of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a folder."""
    return load_file(folder / "model.safetensors")


def write_weights(folder: Path, given: dict[str, torch.Tensor]) -> None:
    """Put other weights into a folder."""
    save_file(given, folder / "model.safetensors", {"format": "pt"})
