"""Do the approximations of softmax attention learn as much as softmax itself? The small model of xformers' Long Range
Arena (2 layers, dim 64, 2 heads) on ListOps of 500 to 2,000 symbols and on mails by their characters.

    DEEPMINE_AUTO_TEST_DATA=... python benchmarks/long_range.py [list_ops mails] [--minutes 8] [--variants nystrom ...]

Each variant trains for the same processor time on one thread, and its accuracy on 500 rows that it has not seen is
printed at every tenth of it, with the rows that it has trained on until then. xformers trained on 160,000 rows of
ListOps in 5,000 steps, which no hour of two cores does; smaller batches take more steps of fewer rows. Compare the
curves with each other, and their ends with what xformers reached at many times the rows.

Shapes: B batch, L length, N rows.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import SimpleNamespace

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch import Tensor, nn

from deepmine_auto import AttentionShape, StackDesign, TransformerStack
from deepmine_auto.host import the_host
from deepmine_auto.model.heads import ClassifierHead
from deepmine_auto.model.multi_head import token_mixer

FIELDS = {"multi_head": {}, "nystrom": {"landmarks": 128}, "performer": {"features": 256}, "linformer": {}}
"""As xformers set them; Linformer gets a quarter of the longest length."""
PUBLISHED = {"multi_head": 0.375, "nystrom": 0.3629, "performer": 0.1956, "linformer": 0.3669}
"""ListOps in xformers' BENCHMARKS.md, after 5,000 steps of 32 rows."""
TESTED, POINTS, JUDGED, BUCKET = 500, 10, 32, 64
OPERATIONS: dict[str, Callable[[list[int]], int]] = {
    "[MAX": max, "[MIN": min, "[MED": lambda values: int(median(values)), "[SM": lambda values: sum(values) % 10,
}  # fmt: skip

Rows = list[tuple[list[int], int]]
"""Token ids from 1 on, and a class."""


@dataclass(frozen=True)
class Data:
    """A task at hand: rows to train on and to test with, the number of token ids and of classes, the longest row."""

    train: Rows
    test: Rows
    vocabulary: int
    classes: int
    longest: int


# -- tasks -----------------------------------------------------------------------------------------------------------


def list_ops(count: int = 12_000) -> Data:
    """The generator of the Long Range Arena: depth 10, at most ten arguments, 500 to 2,000 symbols."""
    rng, rows = random.Random(0), dict[tuple[str, ...], int]()
    while len(rows) < count + TESTED:
        symbols, value = expression(rng, 10)
        if 500 < len(symbols) < 2_000:
            rows[tuple(symbols)] = value
    ids = {symbol: at for at, symbol in enumerate([*OPERATIONS, "]", *map(str, range(10))], 1)}
    found = [([ids[each] for each in symbols], value) for symbols, value in rows.items()]
    return Data(found[TESTED:], found[:TESTED], len(ids) + 1, 10, 2_000)


def expression(rng: random.Random, depth: int) -> tuple[list[str], int]:
    if depth == 0 or rng.random() > 0.25:
        value = rng.randrange(10)
        return [str(value)], value
    parts = [expression(rng, depth - 1) for _ in range(rng.randint(2, 10))]
    name = rng.choice([*OPERATIONS])
    return [name, *(each for part, _ in parts for each in part), "]"], OPERATIONS[name]([value for _, value in parts])


def mails() -> Data:
    """Spam or not, by the bytes of a mail."""
    file = Path(os.environ.get("DEEPMINE_AUTO_TEST_DATA", "../shared/data")) / "spamassassin" / "emails.jsonl.gz"
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        read = [json.loads(line) for line in lines]
    texts = {f"{each['subject']}\n{each['body']}": int(each["label"]) for each in read}
    rows = [([1 + byte for byte in text.encode()[:1_500]], label) for text, label in texts.items()]
    random.Random(0).shuffle(rows)
    return Data(rows[TESTED:], rows[:TESTED], 257, 2, 1_500)


TASKS: dict[str, Callable[[], Data]] = {"list_ops": list_ops, "mails": mails}


# -- one variant -----------------------------------------------------------------------------------------------------


class Classifier(nn.Module):
    """The product's encoder and head around one variant."""

    def __init__(self, name: str, data: Data) -> None:
        super().__init__()
        fields = FIELDS[name] or ({"mixtures": data.longest // 4} if name == "linformer" else {})
        variant = the_host().get("attention", name)(**fields)
        shape = AttentionShape(dim=64, heads=2, kv_heads=2, max_len=data.longest)
        prepared = SimpleNamespace(vocabulary=data.vocabulary, vectors_VE=None)
        self.stack = TransformerStack(
            prepared, lambda each: token_mixer(variant, [], each), shape, StackDesign(depth=2, dropout=0.0)
        )
        self.head = ClassifierHead(64, data.classes, 0.0)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        keep_BL = tokens_BL > 0
        scores_BC: Tensor = self.head(self.stack(tokens_BL, keep_BL).out, keep_BL)
        return scores_BC


def padded(rows: Rows) -> tuple[Tensor, Tensor]:
    tokens = [torch.tensor(ids) for ids, _ in rows]
    return nn.utils.rnn.pad_sequence(tokens, batch_first=True), torch.tensor([label for _, label in rows])


def batches(rows: Rows, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Epochs without end, rows of like length together."""
    rng = random.Random(0)
    while True:
        rows = rng.sample(rows, len(rows))
        buckets = [rows[at : at + size * BUCKET] for at in range(0, len(rows), size * BUCKET)]
        ordered = [row for bucket in buckets for row in sorted(bucket, key=lambda row: len(row[0]))]
        starts = [*range(0, len(rows) - size + 1, size)]
        for start in rng.sample(starts, len(starts)):
            yield padded(ordered[start : start + size])


@torch.inference_mode()
def accuracy(model: nn.Module, rows: Rows) -> float:
    model.eval()
    rows, right = sorted(rows, key=lambda row: len(row[0])), 0
    for start in range(0, len(rows), JUDGED):
        tokens_BL, labels_B = padded(rows[start : start + JUDGED])
        right += int((model(tokens_BL).argmax(-1) == labels_B).sum())
    model.train()
    return right / len(rows)


def curve(name: str, data: Data, seconds: float, rate: float, size: int) -> Iterator[tuple[int, float]]:
    """Train for so many seconds of processor time; give rows trained on, and accuracy, at each tenth of them."""
    torch.manual_seed(0)
    model = Classifier(name, data)
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01)
    adapting = [each for each in model.modules() if hasattr(each, "step")]
    spent, point, seen = 0.0, 1, 0
    for tokens_BL, labels_B in batches(data.train, size):
        begun = time.process_time()
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (seen / size + 1) / 50, max(0.02, 2 - 2 * spent / seconds))
        nn.functional.cross_entropy(model(tokens_BL), labels_B).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        for each in adapting:
            each.step(min(1.0, spent / seconds))
        spent, seen = spent + time.process_time() - begun, seen + size
        if spent >= seconds * point / POINTS:
            yield seen, accuracy(model, data.test)
            point += 1
        if point > POINTS:
            return


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=[*TASKS])
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--variants", nargs="+", default=[*FIELDS])
    asked = parser.parse_args()
    for task in asked.tasks:
        data = TASKS[task]()
        counts = torch.bincount(torch.tensor([label for _, label in data.test]))
        print(
            f"{task}: {len(data.train):,} rows, the commonest class is {counts.max() / len(data.test):.3f}", flush=True
        )
        for name in asked.variants:
            published = f"   xformers {PUBLISHED[name]:.3f}" if task == "list_ops" else ""
            points = []
            for seen, right in curve(name, data, 60 * asked.minutes, asked.rate, asked.batch):
                points.append(f"{seen / 1000:.1f}k {right:.3f}")
                print(f"  {name:<12} {points[-1]}", flush=True)
            print(f"{task:<9} {name:<12} {'  '.join(points)}{published}", flush=True)


if __name__ == "__main__":
    main()
