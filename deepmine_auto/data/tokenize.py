"""Texts to token ids, with Hugging Face's `tokenizers`: whole words, or pieces of words.

Both lowercase, and both put [PAD] at id 0 and [UNK] at id 1. The normaliser and the pre-tokenizer are constants of this
file, so a tokenizer.json that asks for others, whose regular expressions may hang or crash, is refused when it is read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE, WordLevel
from tokenizers.normalizers import NFC, Lowercase, Normalizer, Replace
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.pre_tokenizers import PreTokenizer, Split
from tokenizers.trainers import BpeTrainer

from deepmine_auto.errors import BadInput

T = TypeVar("T")

PAD, UNK = "[PAD]", "[UNK]"
SPECIAL = {PAD: 0, UNK: 1}
FEWEST = 2
"""How often a word must stand in the training texts; the rarer ones teach [UNK] what an unknown word is like."""
CHARACTERS_A_TOKEN = 100
"""A text is cut after so many characters for each token that is wanted, which bounds what a hostile text can cost."""

LETTER = r"[\p{L}\p{M}\p{N}_]"
WORD = "|".join(
    (
        r"https?://\S+",
        rf"[<>]?[:;=][-o*^']?[()\[\]dp/\\|{{}}@]+(?!{LETTER})",  # :) ;-) :'( =d
        r"\bxd+\b",
        r"</?3+",
        r"!+",
        r"\?+",
        r"\.{2,}",
        rf"{LETTER}+?(?=n't\b)",  # do n't, as the GloVe corpora were tokenized
        r"n't\b",
        r"'(?:s|m|re|ve|ll|d)\b",
        rf"\d+(?:[.,:]\d+)+(?!{LETTER})",
        rf"{LETTER}+",
        r"\S",
    )
)
"""What a word is; the alternatives are tried from left to right, on lowercase text."""


def count_words(texts: Iterable[str]) -> list[int]:
    """Return the number of words of each text."""
    blank = _dressed(WordLevel(SPECIAL, unk_token=UNK))
    return guarded(lambda: [len(_words(blank, text)) for text in texts])


def word_tokenizer(texts: Iterable[str], limit: int, extra_words: Iterable[str] = ()) -> Tokenizer:
    """Make a tokenizer of whole words: the `limit` most frequent of `texts`, then those `extra_words` that are new."""
    blank = _dressed(WordLevel(SPECIAL, unk_token=UNK))
    counts = guarded(lambda: Counter(word for text in texts for word in _words(blank, text)))
    known = (word for word, count in counts.items() if count >= FEWEST)
    frequent = sorted(known, key=lambda word: (-counts[word], word))[:limit]
    words = dict.fromkeys((*SPECIAL, *frequent, *extra_words))
    return _dressed(WordLevel({word: at for at, word in enumerate(words)}, unk_token=UNK))


def subword_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Train byte-pair encoding (arXiv:1508.07909) on the words of `texts`, up to `vocabulary` tokens."""
    trained = _dressed(BPE(unk_token=UNK))
    half = vocabulary // 2  # a script of thousands of characters must leave room for pieces, and keep to the limit
    trainer = BpeTrainer(vocab_size=vocabulary, special_tokens=[*SPECIAL], limit_alphabet=half, show_progress=False)
    guarded(lambda: trained.train_from_iterator(texts, trainer))
    # special tokens of a trained tokenizer would match "[PAD]" in a user's text: the model is kept, and they are not
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(each) for each in model["merges"]]
    return _dressed(BPE(model["vocab"], merges, unk_token=UNK))


def token_ids(tokenizer: Tokenizer, texts: Sequence[str], max_len: int) -> list[list[int]]:
    """Return at least one and at most `max_len` ids a text. Raises BadInput for what is no text."""
    short = [text[: CHARACTERS_A_TOKEN * max_len] for text in map(checked, texts)]
    encoded = guarded(lambda: tokenizer.encode_batch_fast(short, add_special_tokens=False))
    return [each.ids[:max_len] or [SPECIAL[UNK]] for each in encoded]


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer.json that this file made. Raises BadInput for any other."""
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_foreign(json.loads(text))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(f"{path} is no tokenizer of ours: {error}.", "Export the model again.") from error
    tokenizer: Tokenizer = guarded(lambda: Tokenizer.from_str(text))
    return tokenizer


def _normalizer() -> Normalizer:
    return Normalizers([NFC(), Lowercase(), Replace("\u2019", "'")])


def _pre_tokenizer() -> PreTokenizer:
    return Split(Regex(WORD), "removed", invert=True)


def _dressed(model: Any) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = _normalizer()
    tokenizer.pre_tokenizer = _pre_tokenizer()
    return tokenizer


def _words(tokenizer: Tokenizer, text: str) -> list[str]:
    normal = tokenizer.normalizer.normalize_str(text)
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)]


def checked(text: object) -> str:
    """Return a text. Raises BadInput for anything else."""
    if not isinstance(text, str):
        raise BadInput(f"{text!r} is no text.", "Give strings.")
    return text


def guarded(work: Callable[[], T]) -> T:
    """Run what is written in Rust, whose panics are no Exception and would pass every `except Exception`."""
    try:
        return work()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise BadInput(f"The text cannot be tokenized: {error}.", "Look for broken characters in it.") from error


def _refuse_foreign(plain: dict[str, Any]) -> None:
    model = plain["model"]
    kind, vocabulary = model["type"], model["vocab"]
    if kind not in ("WordLevel", "BPE"):
        raise ValueError(f"the model is {kind!r}")
    ours = json.loads(_dressed(WordLevel(SPECIAL, unk_token=UNK)).to_str())
    for part in sorted(plain.keys() | ours.keys()):
        if part != "model" and plain.get(part) != ours.get(part):
            raise ValueError(f"its {part!r} is foreign")
    if sorted(vocabulary.values()) != list(range(len(vocabulary))) or not SPECIAL.items() <= vocabulary.items():
        raise ValueError("its token ids have gaps")
