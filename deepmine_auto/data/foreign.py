"""Tokenizers that others made, as tokenizer.json: read only where each of their parts is known to be harmless.

A regular expression in such a file may hang or crash for a short text, so `Split` and `Replace` take fixed text, or
one of the patterns below.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from deepmine_auto.data.tokenize import CHARACTERS_A_TOKEN, checked, guarded
from deepmine_auto.errors import BadInput

MOST_BYTES = 64_000_000
"""Vocabularies of 250,000 tokens take some 17 MB."""

PARTS = frozenset({
    "Sequence", "TemplateProcessing", "BertProcessing", "RobertaProcessing", "ByteLevel",
    "BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Strip", "Prepend", "Precompiled",
    "BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Metaspace", "Punctuation", "Digits", "UnicodeScripts",
    "WordPiece", "BPE", "Unigram", "WordLevel", "BPEDecoder", "ByteFallback", "Fuse", "Split", "Replace",
})  # fmt: skip

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = frozenset({
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    WORDS + r"\p{N}{1,3}" + REST,
    WORDS + r"\p{N}" + REST,
    r" {2,}",
})  # fmt: skip
"""Those of GPT-2, Llama 3, Qwen 2 and T5; none of them repeats a repetition."""


def load_foreign(file: Path) -> Tokenizer:
    """Read a tokenizer.json of others. Raises BadInput where it has a part that is not known to be harmless."""
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        text = file.read_text(encoding="utf-8")
        _refuse_unknown(json.loads(text))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(f"{file} is not read: {error}.", "Use a model whose tokenizer has usual parts.") from error
    tokenizer: Tokenizer = guarded(lambda: Tokenizer.from_str(text))
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # "[PAD]" in a user's text is text
    return tokenizer


def foreign_ids(tokenizer: Tokenizer, texts: Sequence[str], max_len: int) -> list[list[int]]:
    """Return at least one and at most `max_len` ids a text, those that mark its ends among them. Raises BadInput for
    what is no text."""
    short = [text[: CHARACTERS_A_TOKEN * max_len] for text in map(checked, texts)]
    tokenizer.enable_truncation(max_len)
    encoded = guarded(lambda: tokenizer.encode_batch_fast(short))
    return [each.ids or [0] for each in encoded]


def _refuse_unknown(plain: dict[str, Any]) -> None:
    for part in ("model", "normalizer", "pre_tokenizer", "post_processor", "decoder"):
        for node in _nodes(plain.get(part)):
            kind = node["type"]
            if kind not in PARTS:
                raise ValueError(f"its {part} has the unknown part {kind!r}")
            pattern = node.get("pattern")
            if pattern is not None and "String" not in pattern and pattern.get("Regex") not in PATTERNS:
                raise ValueError(f"its {part} has the unknown pattern {str(pattern.get('Regex'))[:60]!r}")


def _nodes(part: Any) -> Iterator[dict[str, Any]]:
    """A part and the parts that it is a sequence of."""
    if part is None:
        return
    yield part
    for name in ("normalizers", "pretokenizers", "processors", "decoders"):
        for each in part.get(name, ()):
            yield from _nodes(each)
