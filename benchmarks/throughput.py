"""Trials an hour at identical params: ours beside `Trainer.hyperparameter_search`, on the same rows and cores.

    python benchmarks/throughput.py [--rows 5000] [--trials 4] [--workers 2] [--float32] [--group-by-length]
        [--stopping]

Every trial is one epoch of fine-tuning MiniLM-L6 on TREC at learning rate 5e-5 and batch 32; nothing is pruned, and
nothing is trained twice. With `--stopping` it is three epochs, at learning rates from 1e-5 to 1e-4, the same for both,
and each stops what is hopeless as it does by default: ours by asha, theirs by the median after each epoch.
The start of Ray and all evaluations of a trial are in our time, one evaluation an epoch in theirs.
Both train as they do by default: ours in bfloat16 where the hardware has it (`--float32`: not), theirs in float32.
Beside it the share of tokens that are padding, and the tokens of the largest batch with padding: ours batches texts of
like length, as many rows or about as many tokens at a time, and lays them side by side where they have room
(`model/pretrained/packing`), Trainer pads what chance puts together (`--group-by-length` gives it the same advantage).
Of tokens a second, padding is none.

Data from the folder that DEEPMINE_AUTO_TEST_DATA names (default ../shared/data).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from search_vs_peers import Data, Part, Tuned, encoder, ours_files, trec

from deepmine_auto import search
from deepmine_auto.pretrained.packing import side_by_side
from deepmine_auto.training.batching import training_order
from deepmine_auto.watcher import Watcher

BATCH = 32
CUTS = (("rows", "true"), ("rows", "false"), ("tokens", "true"), ("tokens", "false"))
"""How an epoch is cut into batches, and whether the texts of one are packed."""

SPACE = """
[plugins]
attention = ["multi_head"]
backbone = ["pretrained"]
tuning = ["full"]
technique = ["mixed_precision"]
optimizer = ["adamw"]
pruner = "{pruner}"
sampler = "random"
[ranges]
"optimizer/adamw/lr" = {{ low = {low}, high = {high} }}
"optimizer/adamw/decay" = 0.01
"model/pretrained/dropout" = 0.1
"model/pretrained/packing" = {packing}
"schedule/kind" = "linear"
"schedule/warmup" = 0.1
"training/epochs" = {epochs}
"training/batch" = {batch}
"training/batching" = "{batching}"
"data/tokens" = "subword"
"data/class_weights" = false
"data/head_dropout" = 0.1
"technique/mixed_precision/use" = {mixed}
"""


class Trials(NamedTuple):
    """The learning rates of all trials, which have so many epochs, and whether some may be stopped."""

    rates: Sequence[float]
    epochs: int
    stopping: bool

    @property
    def space(self) -> dict[str, Any]:
        """What a search space says of them."""
        return {"epochs": self.epochs, "pruner": "asha" if self.stopping else "none"}

    @property
    def recipes(self) -> str:
        """The trials of a search space, in order."""
        return "".join(f'[[recipes]]\n"optimizer/adamw/lr" = {float(each)!r}\n' for each in self.rates)


def alike(trials: int) -> Trials:
    """Trials of an epoch; their rates differ in the fifth digit, as a search never trains the same params twice."""
    return Trials(np.linspace(5e-5, 5.0005e-5, trials), 1, stopping=False)


def usual(trials: int) -> Trials:
    """Trials of three epochs at the rates that are usually searched, in random order."""
    return Trials(np.random.default_rng(0).permutation(np.geomspace(1e-5, 1e-4, trials)), 3, stopping=True)


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


def ours(data: Data, trials: Trials, workers: int, place: Path, **chosen: str) -> float:
    """Seconds until the last trial of a search has ended, its start included."""
    place.mkdir()
    rates = {"low": float(min(trials.rates)), "high": float(max(trials.rates))}
    (place / "space.toml").write_text(SPACE.format(**rates, batch=BATCH, **trials.space, **chosen) + trials.recipes)
    ends = Ends(len(trials.rates))
    try:
        search(
            ends, task="text_classification", data=ours_files(data, place), backbone=encoder(), objective="accuracy",
            space=str(place / "space.toml"), trials=len(trials.rates), workers=workers,
            storage=str(place / "s.db"), output=str(place / "study"),
        )  # fmt: skip
    except Exception:  # Ray wraps what a callback raises
        if len(ends.times) < ends.trials:
            raise
    return ends.times[ends.trials - 1]


def trainers(data: Data, trials: Trials, place: Path, *, grouped: bool) -> float:
    """Seconds of hyperparameter_search for as many trials."""
    tuned = Tuned(data, 0, place)
    more: dict[str, Any] = {"train_sampling_strategy": "group_by_length"} if grouped else {}
    trainer = tuned.trainer(per_device_train_batch_size=BATCH, num_train_epochs=trials.epochs, warmup_steps=0.1, **more)
    begun = time.perf_counter()
    trainer.hyperparameter_search(
        lambda trial: {"learning_rate": float(trials.rates[trial.number])},
        direction="maximize", backend="optuna", n_trials=len(trials.rates),
        compute_objective=lambda metrics: metrics["eval_accuracy"],
    )  # fmt: skip
    return time.perf_counter() - begun


def padding(lengths: np.ndarray, batches: Iterable[Sequence[int]], packed: bool) -> float:
    """The share of tokens that are padding."""
    read = [lengths[np.asarray(each)] for each in batches]
    rows = [side_by_side(each.tolist(), int(each.max()))[1] if packed else len(each) for each in read]
    return float(1 - lengths.sum() / sum(each.max() * count for each, count in zip(read, rows, strict=True)))


def say_cuts(lengths: np.ndarray) -> None:
    """Print what becomes of an epoch that is cut into batches in each way."""
    random = np.random.default_rng(0).permutation(len(lengths))
    cuts = {f"by {each}": training_order(lengths, BATCH, [0, 0], batching=each) for each in ("rows", "tokens")}
    cuts["by chance"] = [random[at : at + BATCH] for at in range(0, len(random), BATCH)]
    for name, batches in cuts.items():
        largest = max(len(each) * lengths[each].max() for each in batches)
        shares = [padding(lengths, batches, packed) for packed in (False, True)]
        padded = "{:6.1%} padding, packed {:6.1%}".format(*shares)
        print(f"{name:<10} {padded}, {largest:,} tokens in the largest batch", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--group-by-length", action="store_true")
    parser.add_argument("--stopping", action="store_true")
    asked = parser.parse_args()
    trials = (usual if asked.stopping else alike)(asked.trials)
    data = first(trec(Path(os.environ.get("DEEPMINE_AUTO_TEST_DATA", "../shared/data")), 0), asked.rows)
    with tempfile.TemporaryDirectory() as place:
        lengths = np.array([len(each["input_ids"]) for each in Tuned(data, 0, Path(place)).train])
        say_cuts(lengths)
        (Path(place) / "theirs").mkdir()
        theirs = trainers(data, trials, Path(place) / "theirs", grouped=asked.group_by_length)
        print(f"hyperparameter_search {_pace(trials, theirs, lengths)}", flush=True)
        mixed = str(not asked.float32).lower()
        for each, packing in CUTS[:1] if asked.stopping else CUTS:
            chosen = {"mixed": mixed, "batching": each, "packing": packing}
            mine = ours(data, trials, asked.workers, Path(place) / f"{each}-{packing}", **chosen)
            name, times = f"by {each}{', packed' if packing == 'true' else ''}", f"{theirs / mine:.2f} times"
            print(f"{name:<21} {_pace(trials, mine, lengths)}: {times}", flush=True)


def _pace(trials: Trials, seconds: float, lengths: np.ndarray) -> str:
    count = len(trials.rates)
    read = "" if trials.stopping else f", {count * trials.epochs * lengths.sum() / seconds:8,.0f} tokens a second"
    return f"{3600 * count / seconds:8.1f} trials an hour{read}"


if __name__ == "__main__":
    main()
