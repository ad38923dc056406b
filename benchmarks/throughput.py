"""Trials an hour at identical params: ours beside `Trainer.hyperparameter_search`, on the same rows and cores.

    python benchmarks/throughput.py [--rows 5000] [--trials 4] [--workers 2] [--float32] [--group-by-length]

Every trial is one epoch of fine-tuning MiniLM-L6 on TREC at learning rate 5e-5 and batch 32; nothing is pruned, and
nothing is trained twice. The start of Ray and all evaluations of a trial are in our time, one evaluation in theirs.
Both train as they do by default: ours in bfloat16 where the hardware has it (`--float32`: not), theirs in float32.
Beside it the share of tokens that are padding, and the tokens of the largest batch with padding: ours batches texts of
like length, as many rows or about as many tokens at a time, Trainer pads what chance puts together
(`--group-by-length` gives it the same advantage). Of tokens a second, padding is none.

Data from the folder that DEEPMINE_AUTO_TEST_DATA names (default ../shared/data).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from search_vs_peers import Data, Part, Tuned, encoder, ours_files, trec

from deepmine_auto import search
from deepmine_auto.searching import Watcher
from deepmine_auto.training.batching import training_order

RATE, BATCH = 5e-5, 32
BATCHINGS = ("rows", "tokens")

SPACE = """
[plugins]
attention = ["multi_head"]
backbone = ["pretrained"]
tuning = ["full"]
technique = ["mixed_precision"]
optimizer = ["adamw"]
pruner = "none"
sampler = "random"
[ranges]
"optimizer/adamw/lr" = {{ low = {low}, high = {high} }}
"optimizer/adamw/decay" = 0.01
"model/pretrained/dropout" = 0.1
"schedule/kind" = "linear"
"schedule/warmup" = 0.1
"training/epochs" = 1
"training/batch" = {batch}
"training/batching" = "{batching}"
"data/tokens" = "subword"
"data/class_weights" = false
"data/head_dropout" = 0.1
"technique/mixed_precision/use" = {mixed}
"""
"""The rate may differ in its fifth digit: a search never trains the same params twice."""


def first(data: Data, rows: int) -> Data:
    """The same with fewer training rows."""
    return data._replace(train=Part(data.train.texts[:rows], data.train.labels[:rows]))


class Enough(Exception):
    """The last trial has ended; the finals are not of interest."""


class Ends(Watcher):
    """When trials ended."""

    def __init__(self, trials: int) -> None:
        self.trials, self.begun, self.times = trials, time.perf_counter(), list[float]()

    def happened(self, kind: str, text: str, trial: int | None) -> None:
        """Note the time of an end."""
        if kind == "ended" and trial is not None:
            self.times.append(time.perf_counter() - self.begun)

    def tick(self) -> None:
        """End the search after its trials."""
        if len(self.times) >= self.trials:
            raise Enough


def ours(data: Data, trials: int, workers: int, place: Path, **chosen: str) -> float:
    """Seconds until the last trial of a search has ended, its start included."""
    place.mkdir()
    space = SPACE.format(low=RATE, high=RATE * 1.0001, batch=BATCH, **chosen)
    (place / "space.toml").write_text(space)
    ends = Ends(trials)
    try:
        search(
            ends, task="text_classification", data=ours_files(data, place), backbone=encoder(), objective="accuracy",
            space=str(place / "space.toml"), trials=trials, workers=workers,
            storage=str(place / "s.db"), output=str(place / "study"),
        )  # fmt: skip
    except Exception:  # Ray wraps what a callback raises
        if len(ends.times) < trials:
            raise
    return ends.times[trials - 1]


def trainers(data: Data, trials: int, place: Path, *, grouped: bool) -> float:
    """Seconds of hyperparameter_search for as many trials."""
    tuned = Tuned(data, 0, place)
    more: dict[str, Any] = {"train_sampling_strategy": "group_by_length"} if grouped else {}
    trainer = tuned.trainer(per_device_train_batch_size=BATCH, num_train_epochs=1, warmup_steps=0.1, **more)
    begun = time.perf_counter()
    trainer.hyperparameter_search(
        lambda trial: {"learning_rate": trial.suggest_float("learning_rate", RATE, RATE * 1.0001)},
        direction="maximize", backend="optuna", n_trials=trials,
        compute_objective=lambda metrics: metrics["eval_accuracy"],
    )  # fmt: skip
    return time.perf_counter() - begun


def padding(lengths: np.ndarray, batches: Iterable[Sequence[int]]) -> float:
    """The share of tokens that are padding."""
    sizes = [(lengths[each].max() * len(each), lengths[each].sum()) for each in map(np.asarray, batches)]
    whole, real = np.sum(sizes, axis=0)
    return float(1 - real / whole)


def say_cuts(lengths: np.ndarray) -> None:
    """Print what becomes of an epoch that is cut into batches in each way."""
    random = np.random.default_rng(0).permutation(len(lengths))
    cuts = {f"by {each}": training_order(lengths, BATCH, [0, 0], batching=each) for each in BATCHINGS}
    cuts["by chance"] = [random[at : at + BATCH] for at in range(0, len(random), BATCH)]
    for name, batches in cuts.items():
        largest = max(len(each) * lengths[each].max() for each in batches)
        share = padding(lengths, batches)
        print(f"{name:<10} {share:6.1%} padding, {largest:,} tokens in the largest batch", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--group-by-length", action="store_true")
    asked = parser.parse_args()
    data = first(trec(Path(os.environ.get("DEEPMINE_AUTO_TEST_DATA", "../shared/data")), 0), asked.rows)
    with tempfile.TemporaryDirectory() as place:
        lengths = np.array([len(each["input_ids"]) for each in Tuned(data, 0, Path(place)).train])
        say_cuts(lengths)
        (Path(place) / "theirs").mkdir()
        theirs = trainers(data, asked.trials, Path(place) / "theirs", grouped=asked.group_by_length)
        print(f"hyperparameter_search {_pace(asked.trials, theirs, lengths)}", flush=True)
        mixed = str(not asked.float32).lower()
        for each in BATCHINGS:
            mine = ours(data, asked.trials, asked.workers, Path(place) / each, mixed=mixed, batching=each)
            times = f"{theirs / mine:.2f} times"
            print(f"{f'ours by {each}':<21} {_pace(asked.trials, mine, lengths)}: {times}", flush=True)


def _pace(trials: int, seconds: float, lengths: np.ndarray) -> str:
    return f"{3600 * trials / seconds:8.1f} trials an hour, {trials * lengths.sum() / seconds:8,.0f} tokens a second"


if __name__ == "__main__":
    main()
