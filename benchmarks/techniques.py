"""What does each technique change, all else equal? The first recipe of a task's space, with each installed technique
added to it by itself at its default setting or the one that is given, over several split seeds.

    python benchmarks/techniques.py [--task sentiment] [--seeds 0 1 2] [--epochs 9] [--techniques ema fgm ...]
    python benchmarks/techniques.py --labelled 200 --techniques pseudo_labels [--task text_classification --data FILE]
    python benchmarks/techniques.py --backbone FOLDER --epochs 4
    python benchmarks/techniques.py --techniques denoising --settings denoising/before=1.0

Each training goes to its last epoch; its last weights are scored once on the locked test rows of its split seed. A
difference is that to the same recipe without any technique on the same split and from the same initial weights. The
standard error is that of the mean of these differences; of three seeds it is a rough one. With --labelled so many of
the training rows keep their labels, and the others are rows without labels.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from random import Random
from statistics import fmean, stdev

from deepmine_auto.data import kept
from deepmine_auto.data.rows import Extra
from deepmine_auto.host import Host, the_host
from deepmine_auto.messages import Assignment
from deepmine_auto.planning.plan import Plan, plan
from deepmine_auto.planning.request import Request
from deepmine_auto.space import Space, Value
from deepmine_auto.space_file.reading import read_space, space_for
from deepmine_auto.study.seeding import seed_of
from deepmine_auto.training.batching import Columns
from deepmine_auto.training.loop import Training
from deepmine_auto.training.outputs import outputs_of

NOTHING = "none"
SPACE = """
[plugins]
attention = ["{attention}"]
backbone = ["{backbone}"]
optimizer = ["adamw"]
technique = [{techniques}]
[ranges]
"training/epochs" = {epochs}
"training/patience" = 200
[[recipes]]
{recipe}
"""


def planned(asked: argparse.Namespace, seed: int, names: list[str], place: Path) -> Plan:
    """A study's rows in a folder, with the first recipe of the task's space without its techniques."""
    host, labelled = the_host(), asked.labelled
    space = "pretrained" if asked.backbone else space_for(host.get("task", asked.task))
    recipe = read_space(space).recipes[0]
    kept_lines = [f'"{name}" = {json.dumps(each)}' for name, each in recipe.items() if not unwanted(name, recipe)]
    techniques = ", ".join(f'"{each}"' for each in names)
    variant = recipe.get("attention/kind", "multi_head")
    given = {
        "attention": variant,
        "backbone": "pretrained" if asked.backbone else "encoder",
        "techniques": techniques,
        "epochs": asked.epochs,
    }
    (place / "space.toml").write_text(SPACE.format(**given, recipe="\n".join(kept_lines)))
    (place / "loose.txt").write_text("What a plan must be given; the rows that are kept are others.\n")
    loose = None if labelled is None else str(place / "loose.txt")
    found = plan(Request(task=asked.task, data=asked.data, space=str(place / "space.toml"), trials=1, seed=seed,
                         backbone=asked.backbone, unlabelled=loose, storage=str(place / "none.db")), host)  # fmt: skip
    split = found.splits[kept.SEARCH]
    drawn = Random(seed).sample(split.train, len(split.train))
    drawn = [*dict.fromkeys([*{found.rows.labels[each]: each for each in drawn}.values(), *drawn])]  # of each label one
    with_labels, without = sorted(drawn[:labelled]), [] if labelled is None else drawn[labelled:]
    texts = [found.rows.inputs[each] for each in without]
    kept.keep(place, found.rows, {kept.SEARCH: split._replace(train=with_labels)}, Extra(texts))
    return found


def unwanted(name: str, recipe: Mapping[str, Value]) -> bool:
    """Whether a param of a recipe belongs to a technique, or to a variant beside its own."""
    other = name.startswith("attention/") and name != "attention/kind"
    mine = f"attention/{recipe.get('attention/kind')}/"
    return name.startswith("technique/") or (other and not name.startswith(mine))


def scored(found: Plan, name: str, names: list[str], place: Path, host: Host, settings: Mapping[str, Value]) -> float:
    """Train with one technique, and score the last weights on the test rows."""
    uses: dict[str, Value] = {f"technique/{each}/use": each == name for each in names}
    uses |= {f"technique/{each}": value for each, value in settings.items() if each.startswith(f"{name}/")}
    space = Space.from_json(found.spec["space"])
    params = space.complete({**space.recipes[0], **uses})
    objective, seed = found.spec["objective"], seed_of(found.spec["seed"], "trial", 0)
    number = [NOTHING, *names].index(name)
    assignment = Assignment("trial", number, 1, str(place), found.spec["task"], objective, kept.SEARCH, seed, params)
    training = Training(assignment, host)
    for _ in training.messages():
        pass
    test = kept.test_rows(place)
    columns = Columns.of(training.prepared.encode(test.inputs), training.prepared.targets(test))
    outputs = outputs_of(training.model, training.evaluated(), columns, training.device)
    return training.task.scores(outputs, columns.targets)[objective]


def main() -> None:
    import torch

    torch.set_num_threads(1)
    host = the_host()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="sentiment")
    parser.add_argument("--data", nargs="*", default=())
    parser.add_argument("--backbone", nargs="*", default=(), help="a pretrained model, fine-tuned")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--labelled", type=int, metavar="N")
    able = [name for name, each in sorted(host.offered("technique").items()) if each.thing.learns_from is None]
    parser.add_argument("--techniques", nargs="+", default=able)
    parser.add_argument("--settings", nargs="+", default=[], metavar="TECHNIQUE/FIELD=VALUE")
    asked = parser.parse_args()
    settings = {each: json.loads(value) for each, _, value in (each.partition("=") for each in asked.settings)}
    names, table = asked.techniques, dict[str, list[float]]()
    for seed in asked.seeds:
        with tempfile.TemporaryDirectory() as folder:
            found = planned(asked, seed, names, Path(folder))
            for name in (NOTHING, *names):
                table.setdefault(name, []).append(scored(found, name, names, Path(folder), host, settings))
                print(f"seed {seed}  {name:<20} {table[name][-1]:.4f}", flush=True)
    print(f"\n{'technique':<20} {'mean':>7} {'points':>7} {'s. e.':>6}  by seed")
    effects = {name: [100 * (a - b) for a, b in zip(table[name], table[NOTHING], strict=True)] for name in table}
    for name in sorted(table, key=lambda each: -fmean(effects[each])):
        error = stdev(effects[name]) / len(asked.seeds) ** 0.5 if len(asked.seeds) > 1 else float("nan")
        print(f"{name:<20} {fmean(table[name]):7.4f} {fmean(effects[name]):+7.2f} {error:6.2f}  "
              f"{' '.join(f'{each:+.1f}' for each in effects[name])}")  # fmt: skip


if __name__ == "__main__":
    main()
