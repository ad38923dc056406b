"""Which attention variants can recall, copy, find and count? And what does searching among them save?

    python benchmarks/recall.py TASK [TASK ...] [--epochs 12] [--backbone decoder] [--variants A,B,...]

Each variant is trained by itself, with the same model and recipe and three learning rates, and its best accuracy on
the validation rows stands in the table: that is the exhaustive search. Then TPE and ASHA search over all of it, and end
after a quarter of the training steps that it took; the regret is how far what they found is below the exhaustive best.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from deepmine_auto.data import kept
from deepmine_auto.executors import inline
from deepmine_auto.host import the_host
from deepmine_auto.messages import Assignment, Reported
from deepmine_auto.objectives import Objective
from deepmine_auto.planning.plan import Plan, plan
from deepmine_auto.planning.request import Request
from deepmine_auto.space import Space, Value
from deepmine_auto.storage.engine import Fence
from deepmine_auto.storage.place import place_of
from deepmine_auto.storage.store import Store
from deepmine_auto.study.agenda import Agenda
from deepmine_auto.study.budget import Budget
from deepmine_auto.study.ledger import Ledger
from deepmine_auto.study.seeding import seed_of
from deepmine_auto.training.trial import messages

SHARE = 0.25
SPACE = """
[plugins]
attention = {variants}
backbone = ["{backbone}"]
optimizer = ["adamw"]
[ranges]
"model/depth" = 2
"model/dim" = [64]
"model/heads" = [2]
"model/{backbone}/dropout" = 0.0
"optimizer/adamw/lr" = {{ low = 1e-3, high = 1e-2 }}
"optimizer/adamw/decay" = 0.01
"schedule/kind" = "cosine"
"schedule/warmup" = 0.1
"training/epochs" = {epochs}
"training/batch" = [64]
"training/patience" = 200
"training/clip" = 1.0
"""
RATES = (1e-3, 3e-3, 1e-2)


class Job:
    """A task and its space, in a folder."""

    def __init__(self, task: str, place: Path, asked: argparse.Namespace) -> None:
        self.task, self.place = task, place
        (place / "space.toml").write_text(
            SPACE.format(variants=json.dumps(asked.variants.split(",")), backbone=asked.backbone, epochs=asked.epochs)
        )
        request = Request(task=task, space=str(place / "space.toml"), trials=1, storage=str(place / "none.db"))
        self.plan: Plan = plan(request, the_host())
        self.space = Space.from_json(self.plan.spec["space"])
        kept.keep(place, self.plan.rows, self.plan.splits)
        (self.kinds,) = (each.range.options for each in self.space.params if each.name == "attention/kind")

    def params(self, kind: Value, rate: float) -> dict[str, Value]:
        """The defaults of a variant, with a learning rate."""
        return self.space.complete({"attention/kind": kind, "model/kind": next(
            each.range.options[0] for each in self.space.params if each.name == "model/kind"),
            "optimizer/kind": "adamw", "optimizer/adamw/lr": rate, "training/batch": 64, "model/dim": 64,
            "model/heads": 2})  # fmt: skip

    def trained(self, number: int, params: dict[str, Value]) -> Iterator[Reported]:
        """Every report of one training."""
        spec = self.plan.spec
        assignment = Assignment("trial", number, 1, str(self.place), self.task, spec["objective"], kept.SEARCH,
                                seed_of(0, "trial", number), params)  # fmt: skip
        with closing(messages(assignment, the_host())) as running:  # type: ignore[type-var]
            yield from (each for each in running if isinstance(each, Reported))

    def exhaustive(self) -> tuple[dict[str, float], int]:
        """The best value of each variant, and the steps that all of it took."""
        best, steps = dict[str, float](), 0
        for number, (kind, rate) in enumerate((kind, rate) for kind in self.kinds for rate in RATES):
            reports = list(self.trained(number, self.params(kind, rate)))
            steps += reports[-1].step if reports else 0
            best[str(kind)] = max([best.get(str(kind), 0.0), *(each.value for each in reports)])
            print(f"{self.task:<20} {kind:<20} lr {rate:g}  {best[str(kind)]:.3f}", flush=True)
        return best, steps

    def searched(self, steps: int) -> tuple[float, str, int]:
        """The best value that a search finds in so many steps, of which variant, and in how many trials."""
        fence = Fence()
        store = Store(place_of(str(self.place / "study.db")).open_writer(fence))
        spec = dict(self.plan.spec)
        study = store.create_study("s", [Objective(spec["objective"], spec["direction"])], str(self.place), spec)
        host = the_host()
        plugins = host.get("sampler", "tpe")(), host.get("pruner", "asha")()
        ledger = Ledger(store, study, fence, plugins, lambda *_: None)
        agenda = Agenda(ledger, Budget(10_000), 1, lambda: 0.0)
        agenda._reruns_left = list  # type: ignore[method-assign]

        def tick() -> None:
            if sum(each.reports[-1]["step"] for each in ledger.history.standing.values() if each.reports) >= steps:
                agenda.stop()

        inline.run(agenda, host, tick)
        values = agenda.best_values()
        best = max(values, key=lambda each: values[each])
        return values[best], str(ledger.params(best)["attention/kind"]), len(values)


def main() -> None:
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--backbone", default="decoder")
    parser.add_argument("--variants", default="multi_head,sliding_window,linear")
    asked = parser.parse_args()
    for task in asked.tasks:
        with tempfile.TemporaryDirectory() as folder:
            job = Job(task, Path(folder), asked)
            best, steps = job.exhaustive()
            for kind, value in sorted(best.items(), key=lambda each: -each[1]):
                print(f"{task:<20} {kind:<20} {value:.3f}", flush=True)
            value, kind, trials = job.searched(round(SHARE * steps))
            regret = 100 * (max(best.values()) - value)
            print(f"{task:<20} a search: {value:.3f} by {kind} in {trials} trials, regret {regret:.1f} points at "
                  f"{SHARE:.0%} of the steps", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
