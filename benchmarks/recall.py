"""Which attention variants can recall, copy, find and count? And what does searching among them save?

    python benchmarks/recall.py TASK [TASK ...] [--epochs 12] [--variants A,B,...]

Each variant is trained by itself on the task, with the same model and recipe, three learning rates, and the best is kept:
that is the exhaustive cost. Then one search over all of them is given a quarter of it. Printed are accuracy on the
validation rows for each variant, what the search found, and its regret against the exhaustive best in points.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from deepmine_auto.host import the_host
from deepmine_auto.searching import search

RATES = (1e-3, 3e-3, 1e-2)

SPACE = """
[plugins]
attention = {variants}
backbone = ["{backbone}"]
optimizer = ["adamw"]
technique = []
[ranges]
"model/depth" = 2
"model/dim" = [64]
"model/heads" = [2]
"optimizer/adamw/lr" = {rate}
"training/epochs" = {epochs}
"training/batch" = [64]
"training/patience" = 200
"""


def found(place: Path, name: str, space: str, **asked: Any) -> tuple[float, float, str]:
    """The best validation score of a search without finals, the seconds it took, and the variant."""
    from deepmine_auto.storage.place import place_of, read
    from deepmine_auto.storage.store import Store

    (place / f"{name}.toml").write_text(space)
    start = time.perf_counter()
    database = str(place / f"{name}.db")
    search(space=str(place / f"{name}.toml"), storage=database, study="s", output=str(place / name), **asked)
    seconds = time.perf_counter() - start
    store: Store = read(place_of(database))
    trials = store.trials(store.study("s").id)
    best = max((each for each in trials if each.values), key=lambda each: max(each.intermediate_values.values()))
    return max(best.intermediate_values.values()), seconds, str(best.params.get("attention/kind"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--backbone", default="decoder")
    parser.add_argument("--variants", default="multi_head,sliding_window,linear")
    asked = parser.parse_args()
    names = asked.variants.split(",")
    for task in asked.tasks:
        values = {"backbone": asked.backbone, "epochs": asked.epochs}
        with tempfile.TemporaryDirectory() as folder:
            place, scores, whole = Path(folder), dict[str, float](), 0.0
            for name in names:
                space = SPACE.format(variants=json.dumps([name]), rate=list(RATES), **values)
                scores[name], seconds, _ = found(place, name, space, task=task, trials=len(RATES), pruner="none")
                whole += seconds
                print(f"{task:<20} {name:<20} {scores[name]:.3f}  {seconds:.0f} s", flush=True)
            space = SPACE.format(variants=json.dumps(names), rate=list(RATES), **values)
            score, seconds, kind = found(place, "all", space, task=task, time_budget=f"{max(30, int(whole / 4))}s")
            regret = 100 * (max(scores.values()) - score)
            print(f"{task:<20} search: {score:.3f} by {kind}, regret {regret:.1f} points, {seconds / whole:.0%} of the time")
    the_host()


if __name__ == "__main__":
    main()
