"""TREC question types (coarse), its own test rows, no pretrained encoder: our accuracy beside TF-IDF + linear SVC.

    python benchmarks/trec.py [--seeds 0] [--time-budget 10m]

Reads the files in the folder that DEEPMINE_AUTO_TEST_DATA names (default ../shared/data).
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from deepmine_auto import load, search
from deepmine_auto.data.read import read_rows, source_from

RESAMPLES = 2000


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, nargs="+", default=[0])
    options.add_argument("--time-budget", default="10m")
    asked = options.parse_args()
    folder = Path(os.environ.get("DEEPMINE_AUTO_TEST_DATA", "../shared/data")) / "trec"
    files = [f"train={folder / 'train.tsv'}", f"test={folder / 'test.tsv'}"]
    rows = read_rows(source_from(files, "text", "coarse"))
    parts = np.array(rows.parts)
    train, test = (rows.take(np.flatnonzero(parts == part)) for part in ("train", "test"))
    peer = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LinearSVC())
    theirs_N = peer.fit(train.inputs, train.labels).predict(test.inputs) == np.array(test.labels)
    print(f"tf-idf + SVC, all {len(train):,} training rows: accuracy {theirs_N.mean():.3f}")
    for seed in asked.seeds:
        with tempfile.TemporaryDirectory() as place:
            result = search(
                task="text_classification",
                data=files,
                text_column="text",
                label_column="coarse",
                seed=seed,
                time_budget=asked.time_budget,
                storage=str(Path(place) / "studies.db"),
                output=str(Path(place) / "study"),
            )
            answers = load(result.bundle).predict(test.inputs)
        ours_N = np.array([each["label"] for each in answers]) == np.array(test.labels)
        rng = np.random.default_rng(0)
        drawn = [rng.integers(len(ours_N), size=len(ours_N)) for _ in range(RESAMPLES)]
        low, high = np.percentile([ours_N[each].mean() for each in drawn], (2.5, 97.5))
        worst, best = np.percentile([ours_N[each].mean() - theirs_N[each].mean() for each in drawn], (2.5, 97.5))
        print(
            f"seed {seed}: accuracy {ours_N.mean():.3f} [{low:.3f}, {high:.3f}], to tf-idf + SVC "
            f"{ours_N.mean() - theirs_N.mean():+.3f} [{worst:+.3f}, {best:+.3f}]; "
            f"{result.found['facts']['trials']} trials, {result.sentence}",
            flush=True,
        )


if __name__ == "__main__":
    main()
