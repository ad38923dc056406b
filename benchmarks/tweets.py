"""Tweets, five split seeds: the exported model's macro-F1 on the locked test, beside TF-IDF + logistic regression.

    python benchmarks/tweets.py [--seeds 0 1 2 3 4] [--time-budget 5m] [--backbone FOLDER] [--refit]

Each seed is a whole search with its own split. The baseline is fitted on the same training rows and scored on the same
test rows, in the same run. With --refit each winner is trained once more, on the validation rows too.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import fmean

from deepmine_auto import search
from deepmine_auto.refitting.all_rows import refit


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options.add_argument("--time-budget", default="5m")
    options.add_argument("--backbone", nargs="*", default=())
    options.add_argument("--refit", action="store_true")
    asked = options.parse_args()
    asked_for = {"time_budget": asked.time_budget, "backbone": asked.backbone}
    print("seed  macro-F1  tf-idf   lead  trials  pruned  reruns  seconds  sentence")
    rows, refits = [], []
    for seed in asked.seeds:
        with tempfile.TemporaryDirectory() as place:
            storage, output = str(Path(place) / "studies.db"), str(Path(place) / "study")
            result = search(seed=seed, storage=storage, output=output, **asked_for)
            again = refit(result.study, result.storage)["evidence"] if asked.refit else None
        found = result.found
        ours, theirs = (found["evidence"][key]["macro_f1"] for key in ("scores", "baseline"))
        rows.append((ours, theirs))
        facts = found["facts"]
        print(
            f"{seed:>4}  {ours:8.4f}  {theirs:6.4f}  {ours - theirs:+.3f}  {facts['trials']:>6}"
            f"  {facts['pruned_share']:6.0%}  {facts['reruns']:>6}  {found['seconds']:7.0f}  {found['sentence']}",
            flush=True,
        )
        if again:
            refits.append(again["lead"])
            print(f"      refit {again['scores']['macro_f1']:.4f}, {again['sentence']}", flush=True)
    if refits:
        print(f"refit {fmean(refits):+.4f} beside the winners: {' '.join(f'{each:+.4f}' for each in refits)}")
    print(f"mean  {fmean(ours for ours, _ in rows):8.4f}  {fmean(theirs for _, theirs in rows):6.4f}"
          f"  {fmean(ours - theirs for ours, theirs in rows):+.3f}  (ratio of errors "
          f"{fmean(1 - ours for ours, _ in rows) / fmean(1 - theirs for _, theirs in rows):.2f})")  # fmt: skip


if __name__ == "__main__":
    main()
