"""A tiny study on disk, and its bundle: 120 tweets, one epoch, dim 32, no search. Made once for all tests."""

import shutil
import tempfile
from functools import cache
from pathlib import Path

from deepmine_auto import Source
from deepmine_auto.bundle.card import UNOPENED, Story
from deepmine_auto.bundle.save import Exported, save
from deepmine_auto.concluding import model_params, outputs_for
from deepmine_auto.data import kept
from deepmine_auto.data.split import split
from deepmine_auto.host import the_host
from deepmine_auto.messages import Assignment
from deepmine_auto.model.assemble import plugins_of
from deepmine_auto.training.loop import Training

PARAMS = {
    "attention/kind": "multi_head",
    "model/kind": "encoder",
    "model/depth": 1,
    "model/dim": 32,
    "model/heads": 2,
    "optimizer/kind": "adamw",
    "schedule/kind": "cosine",
    "training/epochs": 1,
    "data/tokens": "word",
}
EVIDENCE = {
    "objective": "macro_f1",
    "baseline_name": "tf-idf",
    "rows": 12,
    "scores": {"macro_f1": 0.75, "accuracy": 0.8},
    "baseline": {"macro_f1": 0.7, "accuracy": 0.7},
    "interval": (0.6, 0.9),
    "lead": 0.05,
    "lead_interval": (-0.1, 0.2),
}
_KEPT = tempfile.TemporaryDirectory(prefix="deepmine-auto-tests-")


@cache
def training() -> Training:
    """The trained model in the study's folder."""
    folder = Path(_KEPT.name) / "study"
    folder.mkdir()
    rows = the_host().get("task", "sentiment")().read(Source()).take(range(120))
    kept.keep(folder, rows, {kept.SEARCH: split(rows.labels, 0, None)})
    assignment = Assignment(
        kind="trial",
        number=0,
        attempt=0,
        folder=str(folder),
        task="sentiment",
        objective="macro_f1",
        split=kept.SEARCH,
        seed=1,
        params=PARAMS,
    )
    made = Training(assignment, the_host())
    for _ in made.messages():
        pass
    return made


def story(**changed) -> Story:
    """What the card of the tiny bundle tells."""
    plugins = [the_host().brought(kind, name) for kind, name in plugins_of("sentiment", PARAMS)]
    keys = ("kind", "name", "distribution", "version", "hash")
    told = {
        "study": "tiny",
        "task": "sentiment",
        "trial": 0,
        "seed": 0,
        "params": PARAMS,
        "space": "/home/somebody/tiny.toml",
        "data": {"rows": 120, "labels": {"negative": 40, "positive": 80}},
        "fingerprint": "f" * 64,
        "plugins": [{key: getattr(each, key) for key in keys} for each in plugins],
        "versions": {"deepmine-auto": "0.1.0", "torch": "2.13.0"},
        "sentence": UNOPENED,
    }
    return Story(**{**told, **changed})


def exported() -> Exported:
    """What goes into the tiny bundle."""
    made = training()
    return Exported(made.model.state_dict(), made.prepared, model_params(PARAMS), story())


def asked() -> tuple[list[str], object]:
    """Inputs, and what the trained model makes of them."""
    inputs = [f"tweet {number} is so good :)" for number in range(8)]
    return inputs, outputs_for(training(), inputs)


@cache
def bundle() -> Path:
    """The tiny bundle, saved and verified in a clean process. Do not change it: `copy` is yours."""
    folder = Path(_KEPT.name) / "bundle"
    save(folder, exported(), *asked())
    return folder


def copy(folder: Path) -> Path:
    """A copy of the tiny bundle that a test may spoil."""
    return Path(shutil.copytree(bundle(), folder / "bundle"))
