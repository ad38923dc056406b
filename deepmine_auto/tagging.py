"""What a task of one answer a token is: each row is a line of symbols, and a line of answers of the same length.

Where nothing is asked, the answer is `_`. Entity tags, the next character, what a key was paired with: all of it is
this task, and its rows may be as long as they like.

Shapes: B batch, N rows, L length, D dim, C answers, V symbols.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Annotated, Any, ClassVar, cast

import numpy as np
from torch import Tensor, nn

from deepmine_auto.contracts import Direction, Prepared, Task
from deepmine_auto.data.read import read_rows
from deepmine_auto.data.rows import Rows, Source
from deepmine_auto.errors import BadInput, unknown
from deepmine_auto.space import Int

UNASKED = "_"
IGNORED = -100
SPECIAL = ("[PAD]", "[UNK]")
UNKNOWN = SPECIAL.index("[UNK]")
SEPARATOR = "|"
"""The symbol between source and target, in tasks that have both."""


@dataclass(frozen=True)
class SymbolsPrepared:
    """The symbols and the answers of the training rows, each in the order of its ids."""

    symbols: tuple[str, ...]
    answers: tuple[str, ...]
    max_len: int

    @property
    def vocabulary(self) -> int:
        """V, the number of token ids; id 0 is padding."""
        return len(self.symbols)

    @property
    def outputs(self) -> int:
        """C, the number of answers."""
        return len(self.answers)

    @property
    def vectors_VE(self) -> None:
        """Symbols have no pretrained vectors."""

    @property
    def separator(self) -> int | None:
        """The id of the symbol between source and target, where there is one."""
        return self.symbols.index(SEPARATOR) if SEPARATOR in self.symbols else None

    @property
    def unknown(self) -> int:
        """The id of what stands for symbols that no training row has."""
        return UNKNOWN

    @property
    def marks(self) -> tuple[int, ...]:
        """What divides source and target, where something does: no symbol that a technique may hide."""
        return () if self.separator is None else (self.separator,)

    def encode(self, inputs: Sequence[Any]) -> list[list[int]]:
        """Turn lines of symbols into ids. Raises BadInput for what is no text."""
        ids = {symbol: at for at, symbol in enumerate(self.symbols)}
        return [[ids.get(each, UNKNOWN) for each in split(line, self.max_len)] or [UNKNOWN] for line in inputs]

    def targets(self, rows: Rows) -> np.ndarray:
        """Return the answers (N, L), -100 where none is asked. Raises BadInput for an answer that no training row has,
        and where there are not as many answers as symbols."""
        ids = {**{answer: at for at, answer in enumerate(self.answers)}, UNASKED: IGNORED}
        lines = [split(line, self.max_len) for line in rows.labels]
        targets_NL = np.full((len(lines), max(map(len, lines), default=1)), IGNORED, np.int64)
        for at, (line, symbols) in enumerate(zip(lines, rows.inputs, strict=True)):
            asked, given = len(rows.labels[at].split()), len(symbols.split())  # also of what is cut off
            if asked != given:
                what = f"Row {at + 1} has {asked} answers to {given} symbols."
                raise BadInput(what, f"Write one for each; '{UNASKED}' where none is asked.")
            targets_NL[at, : len(line)] = [_known(each, ids) for each in line]
        return targets_NL

    def save(self, folder: Any) -> None:
        """Write `prepared.json` into a folder."""
        (Path(folder) / "prepared.json").write_text(json.dumps(vars(self), ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> SymbolsPrepared:
        """Read what `save` wrote. Raises BadInput for anything else."""
        file = folder / "prepared.json"
        try:
            plain = json.loads(file.read_text(encoding="utf-8"))
            return cls(tuple(map(str, plain["symbols"])), tuple(map(str, plain["answers"])), int(plain["max_len"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{file} is not what a tagging task saved: {error!r}.", "Export the model again.") from error


def split(line: object, max_len: int) -> list[str]:
    """The symbols of a line, at most `max_len`. Raises BadInput for what is no text."""
    if not isinstance(line, str):
        raise BadInput(f"{line!r} is no text.", "Give strings.")
    return line.split()[:max_len]


def _known(answer: str, ids: Mapping[str, int]) -> int:
    if answer not in ids:
        raise unknown(answer, ids, "answer of the training rows", "Correct the row, or add such rows to train.")
    return ids[answer]


class _EachToken(nn.Module):
    def __init__(self, dim: int, answers: int) -> None:
        super().__init__()
        self.to_answers = nn.Linear(dim, answers)

    def forward(self, x_BLD: Tensor, keep_BL: Tensor) -> Tensor:
        logits_BLC: Tensor = self.to_answers(x_BLD)
        return logits_BLC


@dataclass(frozen=True, kw_only=True)
class Tagging(Task):
    """One answer a token. Subclass it, give it a name and a source, and override `made` or `read` where the rows are
    your own."""

    objective: ClassVar[str] = "accuracy"
    directions: ClassVar[Mapping[str, Direction]] = {
        "accuracy": "maximize",
        "whole_rows": "maximize",
        "log_loss": "minimize",
    }
    baseline_name: ClassVar[str] = "bigrams"
    each_token: ClassVar[bool] = True
    fitted_by: ClassVar[tuple[str, ...]] = ("max_len",)

    max_len: Annotated[int, Int(8, 32_768, log=True, searched=False)] = 1024

    def read(self, source: Source) -> Rows:
        """Read the user's files, a column of symbols and one of answers, or the rows that the task makes where none are
        named; a note counts those that will be cut. Raises BadInput."""
        made = [] if source.files else list(self.made(Random(0)))
        if made:
            return Rows([line for line, _ in made], [answers for _, answers in made])
        rows = read_rows(source)
        long = sum(len(str(line).split()) > self.max_len for line in rows.inputs)
        note = f"{long:,} of {len(rows):,} rows have more than {self.max_len:,} symbols and are cut there."
        return replace(rows, notes=(*rows.notes, note)) if long else rows

    def made(self, rng: Random) -> Iterable[tuple[str, str]]:
        """Make rows of its own, symbols and answers; a task that brings none makes none."""
        return ()

    def strata(self, rows: Rows) -> Sequence[Any]:
        """Rows are all alike."""
        return [""] * len(rows)

    def prepare(self, train: Rows) -> SymbolsPrepared:
        """Collect symbols and answers of training rows alone. Raises BadInput for fewer than two answers."""
        symbols = sorted({each for line in train.inputs for each in split(line, self.max_len)})
        answers = sorted({each for line in train.labels for each in split(line, self.max_len)} - {UNASKED})
        if len(answers) < 2:
            raise BadInput(f"The training rows have {len(answers)} different answers.", "Give rows of two or more.")
        return SymbolsPrepared((*SPECIAL, *symbols), tuple(answers), self.max_len)

    def load(self, folder: Any) -> SymbolsPrepared:
        """Read what `prepare` fitted and `save` wrote. Raises BadInput."""
        return SymbolsPrepared.load(Path(folder))

    def head(self, dim: int, prepared: Prepared) -> nn.Module:
        """One score an answer for each token: (B, L, D) to (B, L, C)."""
        return _EachToken(dim, prepared.outputs)

    def loss(self, outputs: Tensor, targets: Tensor, prepared: Prepared) -> Tensor:
        """Return the mean cross-entropy of outputs (B, L, C) over the tokens asked in targets (B, L or more)."""
        asked_BL = targets[:, : outputs.shape[1]]
        summed: Tensor = nn.functional.cross_entropy(outputs.flatten(0, 1), asked_BL.flatten(), reduction="sum")
        return summed / (asked_BL != IGNORED).sum().clamp_min(1)

    def scores(self, outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Return accuracy over the tokens that are asked, the share of rows without a mistake, and log_loss."""
        length = min(outputs.shape[1], targets.shape[1])
        outputs_NLC, targets_NL = outputs[:, :length], targets[:, :length]
        asked_NL = targets_NL != IGNORED
        right_NL = outputs_NLC.argmax(-1) == targets_NL
        log_p_AC = _log_softmax(outputs_NLC[asked_NL])
        asked = max(1, int(asked_NL.sum()))
        return {
            "accuracy": float(right_NL[asked_NL].sum() / asked),
            "whole_rows": float((right_NL | ~asked_NL).all(1).mean()),
            "log_loss": float(-log_p_AC[np.arange(len(log_p_AC)), targets_NL[asked_NL]].sum() / asked),
        }

    def baseline(self, train: Rows, test: Rows, prepared: Prepared) -> np.ndarray:
        """Return log-probabilities (N, L, C) of answers counted after a symbol and the one before it, after the symbol,
        and over all, mixed one to one."""
        fitted = cast(SymbolsPrepared, prepared)
        counts = [Counter[tuple[Any, str]]() for _ in range(3)]
        for line, answers in zip(train.inputs, train.labels, strict=True):
            for contexts, answer in zip(_contexts(split(line, self.max_len)), answers.split(), strict=False):
                for count, context in zip(counts, contexts, strict=True):
                    count.update([(context, answer)] if answer != UNASKED else [])
        tables = [_shares(count, fitted.answers) for count in counts]
        lines = [split(line, self.max_len) for line in test.inputs]
        log_p_NLC = np.zeros((len(lines), max(map(len, lines)), fitted.outputs))
        for at, line in enumerate(lines):
            for place, contexts in enumerate(_contexts(line)):
                found = [table[each] for table, each in zip(tables, contexts, strict=True) if each in table]
                log_p_NLC[at, place] = np.log(np.mean(found, axis=0) + 1e-9)
        return log_p_NLC

    def answers(self, outputs: np.ndarray, prepared: Prepared) -> list[dict[str, Any]]:
        """Return the likeliest answer to each token of a row, and its probability."""
        names = cast(SymbolsPrepared, prepared).answers
        return [_told(outputs_LC[outputs_LC.any(-1)], names) for outputs_LC in outputs]

    def describe(self, rows: Rows) -> dict[str, Any]:
        """Count rows, and measure them in symbols."""
        lengths = [len(line.split()) for line in rows.inputs]
        return {"rows": len(rows), "median_words": float(np.median(lengths)), "longest_words": max(lengths)}


def _contexts(line: Sequence[str]) -> Iterable[tuple[Any, ...]]:
    return (((line[at - 1] if at else "", each), each, "") for at, each in enumerate(line))


def _shares(counts: Counter[tuple[Any, str]], answers: Sequence[str]) -> dict[Any, np.ndarray]:
    place, found = {answer: at for at, answer in enumerate(answers)}, dict[Any, np.ndarray]()
    for (context, answer), count in counts.items():
        found.setdefault(context, np.zeros(len(answers)))[place[answer]] += count
    return {context: each_C / each_C.sum() for context, each_C in found.items()}


def _told(outputs_LC: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    p_LC = np.exp(_log_softmax(outputs_LC))
    return {"answers": [names[each] for each in p_LC.argmax(-1)], "probabilities": p_LC.max(-1, initial=0.0).tolist()}


def _log_softmax(outputs_NC: np.ndarray) -> np.ndarray:
    shifted_NC = outputs_NC.astype(np.float64) - outputs_NC.max(-1, keepdims=True, initial=-np.inf)
    log_p_NC: np.ndarray = shifted_NC - np.log(np.exp(shifted_NC).sum(-1, keepdims=True))
    return log_p_NC
