"""The distribution that `deepmine-auto plugins new` writes: four short files that run before they are clever."""

from __future__ import annotations

import keyword
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent

from deepmine_auto import __version__
from deepmine_auto.contracts import KINDS
from deepmine_auto.errors import BadInput, unknown
from deepmine_auto.host import HOOKS
from deepmine_auto.testing.checks import KITS

NAME = re.compile("[a-z][a-z0-9_]*")

BEGINS_WITH = {"task": "TextClassification"}
"""The class that a plugin of a kind extends, where that is not the kind's contract itself."""


def begin(name: str, kind: str, parent: Path) -> Path:
    """Write the files into a new folder `parent/name` and return it. Raises BadInput; then nothing is written."""
    if kind not in PLUGINS:
        raise unknown(kind, PLUGINS, "kind of plugin that can be begun")
    if not NAME.fullmatch(name) or any(map(keyword.iskeyword, (name, _class_of(name)))) or find_spec(name):
        remedy = (
            "Use small letters, digits and underscores, a letter first, and no word of Python or name of a package."
        )
        raise BadInput(f"'{name}' is no name for a plugin.", remedy)
    folder = parent / name
    if folder.exists():
        raise BadInput(f"{folder} exists already.", "Give another name, or another --output.")
    try:
        for place, text in files(name, kind).items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).write_text(text, encoding="utf-8")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise BadInput(f"{folder} cannot be written: {error.strerror}.", "Give another --output.") from error
    return folder


def files(name: str, kind: str) -> dict[str, str]:
    """The text of each file, by its place in the folder."""
    class_name = _class_of(name)
    path, attribute = KITS[BEGINS_WITH.get(kind, KINDS[kind].__name__)]
    module, _, promises = path.partition(":")
    words = {"NAME": name, "CLASS": class_name, "KIND": kind, "HOOK": HOOKS[kind], "VERSION": _series()}
    words |= {"MODULE": module, "PROMISES": promises, "ATTRIBUTE": attribute}
    texts = {
        "pyproject.toml": PYPROJECT,
        f"{name}/__init__.py": DOOR,
        f"{name}/{kind}.py": PLUGINS[kind],
        f"test_{name}.py": TEST,
    }
    return {place: _filled(text, words) for place, text in texts.items()}


def _class_of(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _series() -> str:
    major, minor, *_ = __version__.split(".")
    return f"{major}.{minor}"


def _filled(text: str, words: dict[str, str]) -> str:
    filled = dedent(text).lstrip()
    for word, value in words.items():
        filled = filled.replace(f"<{word}>", value)
    return filled


PYPROJECT = """
    [build-system]
    requires = ["setuptools>=77"]
    build-backend = "setuptools.build_meta"

    [project]
    name = "deepmine-auto-<NAME>"
    version = "0.1.0"
    description = "The <KIND> <NAME> for deepmine-auto."
    requires-python = ">=3.11"
    dependencies = ["deepmine-auto>=<VERSION>", "torch"]

    [project.entry-points.deepmine_auto]
    <NAME> = "<NAME>"

    [tool.setuptools]
    packages = ["<NAME>"]
"""

DOOR = '''
    """The door: says what this distribution brings. Import nothing heavy here."""

    from deepmine_auto import hookimpl


    @hookimpl
    def <HOOK>():
        """What this distribution brings."""
        return ("<NAME>.<KIND>:<CLASS>",)
'''

TEST = '''
    """What deepmine-auto expects of every <KIND>, about this one: run `pytest`."""

    from <MODULE> import <PROMISES>

    from <NAME>.<KIND> import <CLASS>


    class Test<CLASS>(<PROMISES>):
        <ATTRIBUTE> = <CLASS>
'''

ATTENTION = '''
    """Softmax attention with a temperature: the sharper, the fewer tokens each one looks at.

    Shapes: B batch, H heads, L length, S source length (keys), K dim of one head.
    """

    from dataclasses import dataclass
    from typing import Annotated, ClassVar

    from torch import Tensor, nn

    from deepmine_auto import AttentionCore, AttentionShape, Caps, DenseAttention, Float


    @dataclass(frozen=True, kw_only=True)
    class <CLASS>(AttentionCore):
        """Each field with a range is searched. `DenseAttention` does masks, and, with `matrix`, all modifiers."""

        name: ClassVar[str] = "<NAME>"
        source: ClassVar[str] = "arXiv:1706.03762"  # the paper that it follows
        caps: ClassVar[Caps] = Caps.everywhere(
            weights="exact", matrix=True, fit="finetune", decoding="kv", normalized=True, position_free=True
        )
        neutral: ClassVar[dict[str, float]] = {"sharpness": 1.0}  # where it equals softmax attention

        sharpness: Annotated[float, Float(0.25, 4.0, log=True)] = 1.0

        def build(self, shape: AttentionShape) -> nn.Module:
            """Make the module, which owns what is learned."""
            return _Scores(self.sharpness)


    class _Scores(DenseAttention):
        def __init__(self, sharpness: float) -> None:
            super().__init__()
            self.sharpness = sharpness

        def score(self, q_BHLK: Tensor, k_BHSK: Tensor) -> Tensor:
            return self.sharpness * super().score(q_BHLK, k_BHSK)
'''

TASK = '''
    """Is a sum right? A task with rows of its own; with `--data` it learns from yours."""

    import random
    from dataclasses import dataclass
    from typing import ClassVar

    from deepmine_auto import Rows, Source, TextClassification

    ROWS = 600


    @dataclass(frozen=True, kw_only=True)
    class <CLASS>(TextClassification):
        """`TextClassification` brings tokenizer, loss, scores and baseline; a task says where its rows come from."""

        name: ClassVar[str] = "<NAME>"
        source: ClassVar[str] = "https://example.org"  # where the data are described

        def read(self, source: Source) -> Rows:
            """Read the user's files, or make the rows where there are none."""
            return super().read(source) if source.files else sums(random.Random(0))


    def sums(rng: random.Random) -> Rows:
        """Sums of two numbers, half of them wrong."""
        pairs = rng.sample([(first, second) for first in range(100) for second in range(100)], ROWS)
        right = [at % 2 == 0 for at in range(ROWS)]
        texts = [f"{a} plus {b} is {a + b + (0 if fits else rng.randint(1, 9))}" for (a, b), fits in zip(pairs, right)]
        return Rows(texts, ["right" if fits else "wrong" for fits in right])
'''

TUNING = '''
    """Only the scales and shifts learn with which a pretrained model normalizes."""

    from dataclasses import dataclass
    from typing import ClassVar

    from torch import nn

    from deepmine_auto import BadInput, Tuning


    @dataclass(frozen=True, kw_only=True)
    class <CLASS>(Tuning):
        """Each field with a range is searched."""

        name: ClassVar[str] = "<NAME>"
        source: ClassVar[str] = "arXiv:2312.11420"  # the paper that it follows

        def apply(self, model: nn.Module) -> None:
            """Freeze what shall not learn; what is put around a layer keeps it as its `base_layer`. Raises BadInput."""
            model.requires_grad_(False)
            norms = [each for each in model.modules() if "norm" in type(each).__name__.lower()]
            if not norms:
                raise BadInput("This model has no norms.", "Choose another tuning, such as full.")
            for each in norms:
                each.requires_grad_(True)
'''

OPTIMIZER = '''
    """Gradient descent with momentum."""

    from collections.abc import Iterable
    from dataclasses import dataclass
    from typing import Annotated, ClassVar

    import torch
    from torch import nn

    from deepmine_auto import Float, Optimizer, decay_groups


    @dataclass(frozen=True, kw_only=True)
    class <CLASS>(Optimizer):
        """Each field with a range is searched; the learning rate is named `lr`, and its schedule is another plugin."""

        name: ClassVar[str] = "<NAME>"
        source: ClassVar[str] = "https://proceedings.mlr.press/v28/sutskever13.html"  # the paper that it follows

        lr: Annotated[float, Float(1e-2, 1.0, log=True)] = 0.1
        momentum: Annotated[float, Float(0.5, 0.99)] = 0.9

        def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
            """Make the optimizer; `decay_groups` spares biases and norms the decay."""
            return torch.optim.SGD(decay_groups(parameters, 1e-4), lr=self.lr, momentum=self.momentum)
'''

SCHEDULE = '''
    """A learning rate that falls with a power of what is left of the steps."""

    from dataclasses import dataclass
    from typing import Annotated, ClassVar

    from deepmine_auto import Float, Schedule


    @dataclass(frozen=True, kw_only=True)
    class <CLASS>(Schedule):
        """Each field with a range is searched; what the learning rate does before, in warm-up, is the host's."""

        name: ClassVar[str] = "<NAME>"
        source: ClassVar[str] = "arXiv:1606.00915"  # the paper that it follows

        power: Annotated[float, Float(0.5, 2.0)] = 0.9

        def factor(self, done: float) -> float:
            """Say what multiplies the learning rate after a share of the steps: 1 at 0, never below 0 nor above 1."""
            return (1.0 - done) ** self.power
'''

TECHNIQUE = '''
    """Noise on the loss: each step is taken with a random weight."""

    from dataclasses import dataclass
    from typing import Annotated, ClassVar

    import torch
    from torch import Tensor

    from deepmine_auto import Applied, Batch, Float, Technique, Touches, TrainingFacts


    @dataclass(frozen=True, kw_only=True)
    class <CLASS>(Technique):
        """Each field with a range is searched. It says what it touches: `input`, `weights`, `loss` or `judged`."""

        name: ClassVar[str] = "<NAME>"
        source: ClassVar[str] = "https://example.org"  # the paper that it follows
        touches: ClassVar[frozenset[Touches]] = frozenset({"loss"})

        spread: Annotated[float, Float(0.0, 0.5)] = 0.1

        def build(self, facts: TrainingFacts) -> Applied:
            """Put it to work on one trial; what is random comes from the trial's generator."""
            return _Applied(self.spread, facts.generator)


    class _Applied(Applied):
        def __init__(self, spread: float, generator: torch.Generator) -> None:
            self.spread = spread
            self.generator = generator
            self.weight = 1.0

        def on_batch(self, batch: Batch) -> Batch:
            self.weight = 1.0 + self.spread * (2.0 * torch.rand((), generator=self.generator).item() - 1.0)
            return batch

        def on_loss(self, loss: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
            return self.weight * loss
'''

PLUGINS = {
    "attention": ATTENTION,
    "task": TASK,
    "tuning": TUNING,
    "optimizer": OPTIMIZER,
    "schedule": SCHEDULE,
    "technique": TECHNIQUE,
}
