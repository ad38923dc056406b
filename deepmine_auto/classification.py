"""What a text classification task is: one label a text, judged by macro-F1.

Shapes: B batch, N rows, L length, D dim, C classes, V vocabulary, E dim of pretrained word vectors.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, cast

import numpy as np
from tokenizers import Tokenizer
from torch import Tensor, nn

from deepmine_auto.contracts import Direction, Original, Prepared, Task
from deepmine_auto.data.foreign import foreign_ids, load_foreign
from deepmine_auto.data.paraphrases import read_paraphrases
from deepmine_auto.data.read import read_classes
from deepmine_auto.data.rows import Rows, Source
from deepmine_auto.data.tokenize import count_words, load_tokenizer, subword_tokenizer, token_ids, word_tokenizer
from deepmine_auto.data.unlabelled import read_unlabelled
from deepmine_auto.data.vectors import glove
from deepmine_auto.errors import BadInput, unknown
from deepmine_auto.model.heads import ClassifierHead
from deepmine_auto.space import Choice, Float, Int

MOST_WEIGHTS = 10_000_000
"""The baseline has no more weights than these: fitting them holds 25 numbers of each."""

MOST_WORDS = 30_000
"""How many different words of the training rows have a row of their own in the token table."""

FIRST_TOKENS = 16
"""Where padding is a later token than these, it was added to the others, and no table leaves room for it."""


@dataclass(frozen=True)
class Fitted:
    """What is kept beside the tokenizer: labels in the order of the classes, and the class weights that give each class
    the same say in the loss (their mean over the training rows is 1); whether tokens have pretrained vectors; how the
    pretrained model is built whose tokenizer it is."""

    labels: tuple[str, ...]
    class_weights: tuple[float, ...]
    max_len: int
    pretrained: bool
    architecture: Mapping[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class TextPrepared:
    """A tokenizer and what else was fitted; the pretrained vectors are looked up again when it is loaded."""

    tokenizer: Tokenizer
    fitted: Fitted
    vectors_VE: np.ndarray | None

    @classmethod
    def of(cls, tokenizer: Tokenizer, fitted: Fitted) -> TextPrepared:
        """Join both with the bundled vectors of the tokens, where they are wanted."""
        return cls(tokenizer, fitted, glove().of(tokenizer.get_vocab()) if fitted.pretrained else None)

    @property
    def vocabulary(self) -> int:
        """V, the number of token ids; id 0 is padding."""
        return int(self.tokenizer.get_vocab_size())

    @property
    def outputs(self) -> int:
        """C, the number of classes."""
        return len(self.fitted.labels)

    @property
    def max_len(self) -> int:
        """The most tokens of a text; the others are cut."""
        return self.fitted.max_len

    @property
    def architecture(self) -> Mapping[str, Any] | None:
        """How the pretrained model is built whose tokenizer this is, or None."""
        return self.fitted.architecture

    @property
    def padding(self) -> str:
        """The token that fills rows up; a pretrained model may have another one than ours."""
        at = int((self.architecture or {}).get("pad_token_id") or 0)
        return str(self.tokenizer.id_to_token(at))

    @property
    def unknown(self) -> int:
        """The token that stands for any other: a pretrained model's mask, which it knows as such, else the unknown, or
        one for padding or for the ends of texts, because any other token may be a word."""
        named = (self.tokenizer.token_to_id(each) for each in ("[MASK]", "<mask>", "[UNK]", "<unk>"))
        ids: list[Any] = [*named, *_no_words(self.architecture or {})]
        return next((each for each in ids if each in range(self.vocabulary)), 1)

    @property
    def marks(self) -> tuple[int, ...]:
        """The tokens that stand at the ends of every text."""
        return () if self.architecture is None else tuple(self.tokenizer.encode("").ids)

    def encode(self, inputs: Sequence[Any]) -> list[list[int]]:
        """Turn texts into at least one and at most `max_len` token ids each. Raises BadInput for what is no text."""
        return self.ids(inputs, self.max_len)

    def ids(self, texts: Sequence[Any], most: int) -> list[list[int]]:
        """Turn texts into at least one and at most `most` token ids each. Raises BadInput for what is no text."""
        return (token_ids if self.architecture is None else foreign_ids)(self.tokenizer, texts, most)

    def targets(self, rows: Rows) -> np.ndarray:
        """Return the class of each row, int64 (N,). Raises BadInput for a label that no training row has."""
        classes = {label: at for at, label in enumerate(self.fitted.labels)}
        for label in map(str, rows.labels):
            if label not in classes:
                raise unknown(
                    label, classes, "label of the training rows", "Correct the row, or add such rows to train."
                )
        return np.array([classes[str(label)] for label in rows.labels], np.int64)

    def save(self, folder: Any) -> None:
        """Write `tokenizer.json` and `prepared.json` into a folder."""
        self.tokenizer.save(str(Path(folder) / "tokenizer.json"))
        text = json.dumps(asdict(self.fitted), ensure_ascii=False, indent=1)
        (Path(folder) / "prepared.json").write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> TextPrepared:
        """Read what `save` wrote. Raises BadInput for anything else."""
        file = folder / "prepared.json"
        try:
            plain = json.loads(file.read_text(encoding="utf-8"))
            labels, weights = map(str, plain["labels"]), map(float, plain["class_weights"])
            architecture = dict(plain["architecture"]) if plain.get("architecture") else None
            known = int(plain["max_len"]), bool(plain["pretrained"]), architecture
            fitted = Fitted(tuple(labels), tuple(weights), *known)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{file} is not what a text task saved: {error!r}.", "Export the model again.") from error
        read = load_tokenizer if architecture is None else load_foreign
        return cls.of(read(folder / "tokenizer.json"), fitted)


@dataclass(frozen=True, kw_only=True)
class TextClassification(Task):
    """One label a text. Subclass it, give it a name and a source, and override `read` where the data are your own.

    tokens: `glove` is words with pretrained vectors, `word` is words alone, `subword` is pieces of words; a pretrained
    backbone brings its own instead.
    class_weights: whether rare classes weigh more in the loss. max_len: longer texts are cut after so many tokens.
    """

    objective: ClassVar[str] = "macro_f1"
    directions: ClassVar[Mapping[str, Direction]] = {
        "macro_f1": "maximize",
        "accuracy": "maximize",
        "log_loss": "minimize",
    }
    baseline_name: ClassVar[str] = "tf-idf"
    fitted_by: ClassVar[tuple[str, ...]] = ("tokens", "max_len", "subwords")
    own_words: ClassVar[frozenset[str]] = frozenset({"tokens", "subwords"})

    tokens: Annotated[str, Choice("glove", "word", "subword")] = "glove"
    class_weights: Annotated[bool, Choice(False, True)] = False
    head_dropout: Annotated[float, Float(0.0, 0.6)] = 0.3
    max_len: Annotated[int, Int(8, 32_768, log=True, searched=False)] = 256
    subwords: int = 2_000

    def read(self, source: Source) -> Rows:
        """Read the user's files; a note counts the texts that will be cut. Raises BadInput."""
        rows = read_classes(source)
        long = sum(words > self.max_len for words in count_words(rows.inputs))
        note = f"{long:,} of {len(rows):,} texts have more than {self.max_len} words and are cut there."
        return replace(rows, notes=(*rows.notes, note)) if long else rows

    def read_unlabelled(self, file: Path, text_column: str | None, rows: Rows) -> Sequence[Any]:
        """Read the texts of a file that no row has. Raises BadInput where none is left, or for another language."""
        return read_unlabelled(file, text_column, rows.inputs)

    def read_paraphrases(self, file: Path, text_column: str | None, rows: Rows, test: Rows) -> Sequence[Sequence[Any]]:
        """Read other words for texts of rows. Raises BadInput where none is left, or for another language."""
        return read_paraphrases(file, text_column, rows.inputs, test.inputs)

    def strata(self, rows: Rows) -> Sequence[Any]:
        """The labels."""
        return rows.labels

    def prepare(self, train: Rows) -> TextPrepared:
        """Fit tokenizer, labels and class weights on training rows alone. Raises BadInput if they have one label."""
        labels, weights = _classes(train)
        fitted = Fitted(labels, weights, self.max_len, self.tokens == "glove")
        return TextPrepared.of(self._tokenizer(train.inputs), fitted)

    def prepare_for(self, train: Rows, original: Original) -> TextPrepared:
        """Fit labels and class weights on training rows alone. Raises BadInput if they have one label."""
        labels, weights = _classes(train)
        most = min(self.max_len, _positions(original.architecture) or self.max_len)
        return TextPrepared.of(original.tokenizer, Fitted(labels, weights, most, False, original.architecture))

    def _tokenizer(self, texts: Sequence[str]) -> Tokenizer:
        if self.tokens == "subword":
            return subword_tokenizer(texts, self.subwords)
        # a word that only a later text has still means something if it has a pretrained vector
        return word_tokenizer(texts, MOST_WORDS, glove().words if self.tokens == "glove" else ())

    def load(self, folder: Any) -> TextPrepared:
        """Read what `prepare` fitted and `save` wrote. Raises BadInput."""
        return TextPrepared.load(Path(folder))

    def head(self, dim: int, prepared: Prepared) -> nn.Module:
        """Pooling and one score a class: (B, L, D) to (B, C)."""
        return ClassifierHead(dim, prepared.outputs, self.head_dropout)

    def loss(self, outputs: Tensor, targets: Tensor, prepared: Prepared) -> Tensor:
        """Return the cross-entropy of outputs (B, C) with targets (B,), weighted by class if asked for."""
        weights = cast(TextPrepared, prepared).fitted.class_weights
        weights_C = outputs.new_tensor(weights) if self.class_weights else None
        return nn.functional.cross_entropy(outputs, targets, weights_C)

    def scores(self, outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Return macro_f1, accuracy and log_loss, equal to scikit-learn's, of outputs (N, C)."""
        predicted_N = outputs.argmax(1)
        log_p_NC = _log_softmax(outputs)
        return {
            "macro_f1": _macro_f1(predicted_N, targets, outputs.shape[1]),
            "accuracy": float((predicted_N == targets).mean()),
            "log_loss": float(-log_p_NC[np.arange(len(targets)), targets].mean()),
        }

    def baseline(self, train: Rows, test: Rows, prepared: Prepared) -> np.ndarray:
        """Return the log-probabilities (N, C) of logistic regression over TF-IDF of words and word pairs, the commonest
        where there are very many."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        # the library's defaults score macro-F1 .62 on the tweets; balanced, with C = 30 and with punctuation, it is .81
        most, pattern = MOST_WEIGHTS // prepared.outputs, r"\w+|[^\w\s]+"
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=pattern, max_features=most)
        model = LogisticRegression(C=30.0, class_weight="balanced", max_iter=1_000)
        model.fit(vectorizer.fit_transform(train.inputs), prepared.targets(train))
        log_p_NC = np.full((len(test), prepared.outputs), np.log(1e-12))
        log_p_NC[:, model.classes_] = model.predict_log_proba(vectorizer.transform(test.inputs))
        return log_p_NC

    def answers(self, outputs: np.ndarray, prepared: Prepared) -> list[dict[str, Any]]:
        """Return the likeliest label of each row, its probability, and those of all labels."""
        labels = cast(TextPrepared, prepared).fitted.labels
        p_NC = np.exp(_log_softmax(outputs)).tolist()
        best_N = outputs.argmax(1).tolist()
        return [
            {"label": labels[best], "probability": p_C[best], "probabilities": dict(zip(labels, p_C, strict=True))}
            for best, p_C in zip(best_N, p_NC, strict=True)
        ]

    def describe(self, rows: Rows) -> dict[str, Any]:
        """Count rows and labels, and measure the texts in words between blanks."""
        words_N = [len(text.split()) for text in rows.inputs]
        return {
            "rows": len(rows),
            "labels": dict(sorted(Counter(map(str, rows.labels)).items())),
            "median_words": float(np.median(words_N)),
            "longest_words": max(words_N),
        }


def _positions(architecture: Mapping[str, Any]) -> int:
    """How many tokens a pretrained model has positions for, under the name that its architecture has for them; 0 where
    it does not say. Where padding is one of the first tokens but not 0, as in RoBERTa, the table may begin after it."""
    from transformers import CONFIG_MAPPING

    name = "max_position_embeddings"
    own = CONFIG_MAPPING[architecture["model_type"]].attribute_map.get(name, name)
    padding = architecture.get("pad_token_id") or 0
    before = padding + 1 if 0 < padding < FIRST_TOKENS else 0
    return max(0, int(architecture.get(own) or architecture.get(name) or 0) - before)


def _no_words(architecture: Mapping[str, Any]) -> list[Any]:
    """The tokens that a pretrained model has for padding, and at the end and the beginning of a text."""
    told = [architecture.get(f"{each}_token_id") for each in ("pad", "eos", "bos")]
    return [each[0] if isinstance(each, list) and each else each for each in told]  # a chat may end in several ways


def _classes(train: Rows) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """The labels in the order of the classes, and the weight of each class."""
    counts = Counter(map(str, train.labels))
    if len(counts) < 2:
        what = f"Every training row has the label '{min(counts)}'." if counts else "There is no training row."
        raise BadInput(what, "Give rows of two labels or more.")
    labels = tuple(sorted(counts))
    return labels, tuple(len(train) / (len(labels) * counts[label]) for label in labels)


def _log_softmax(outputs_NC: np.ndarray) -> np.ndarray:
    shifted_NC = outputs_NC.astype(np.float64) - outputs_NC.max(1, keepdims=True)
    log_p_NC: np.ndarray = shifted_NC - np.log(np.exp(shifted_NC).sum(1, keepdims=True))
    return log_p_NC


def _macro_f1(predicted_N: np.ndarray, targets_N: np.ndarray, classes: int) -> float:
    """The mean of F1 over the classes that are predicted or true anywhere."""
    right_C = np.bincount(targets_N[predicted_N == targets_N], minlength=classes)
    named_C = np.bincount(predicted_N, minlength=classes) + np.bincount(targets_N, minlength=classes)
    at_hand = named_C > 0
    return float((2 * right_C[at_hand] / named_C[at_hand]).mean())
