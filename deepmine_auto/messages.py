"""What the ledger's side and a worker say to each other: plain data, because it crosses processes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["trial", "rerun", "distilled", "refit"]
Cause = Literal[
    "budget", "patience", "pruned", "deadline", "limit", "diverged", "memory", "plugin", "error", "lost", "cancelled"
]
"""Why a trial ended. `limit`: it costs more than a limit of the study allows; `lost`: its worker went too often."""

Because = Literal["begun", "resumed", "lost", "hung", "preempted", "memory"]
"""Why an attempt at a trial was made: the first; after a driver's end; or after what became of the attempt before."""


def attempt_folder(kind: str, number: int, attempt: int) -> str:
    """Where one attempt at a trial or rerun keeps its checkpoints, relative to the study's folder."""
    return f"checkpoints/{kind}-{number:05d}/attempt-{attempt}"


@dataclass(frozen=True)
class Assignment:
    """One trial or rerun for a worker: where the study's folder is, what to train, and where to go on from.

    `checkpoints` are relative to the folder, newest first: the first that is whole counts. `rungs` are the shares of
    the budget, in thousandths, at which one is due. `halvings`: a batch is worked off in 2 ** halvings times as many
    parts as techniques ask for, because it did not fit into memory; the weights move as if it had. `processes`: so
    many, one GPU each, share a batch.
    """

    kind: Kind
    number: int
    attempt: int
    folder: str
    task: str
    objective: str
    split: str
    seed: int
    params: Mapping[str, Any]
    checkpoints: tuple[str, ...] = ()
    rungs: tuple[int, ...] = ()
    halvings: int = 0
    processes: int = 1

    @property
    def key(self) -> tuple[Kind, int]:
        """What names the trial or rerun, whichever attempt it is."""
        return self.kind, self.number

    def to_json(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Assignment:
        """Read what `to_json` wrote."""
        plain = json.loads(text)
        return cls(**{**plain, "checkpoints": tuple(plain["checkpoints"]), "rungs": tuple(plain["rungs"])})


WHOLE = 1000
"""The share of a training that has taken all its steps: shares are thousandths."""

BEFORE_TASK = "before_task"
"""The metric that says which part of all its steps a training took before those of the task, where it took some."""

OUT_OF_PATIENCE = "out_of_patience"
"""The metric of a last report, where no patience is left."""


@dataclass(frozen=True)
class Reported:
    """An evaluation: the step, its share of the budget in thousandths, the value of the first objective, all metrics
    (the task's scores and what the model costs, `objectives.COSTS`), and the newest and the best checkpoint, which hold
    what the database may name. `took`: the seconds for the outputs of the validation rows, and for their scores."""

    step: int
    share: int
    value: float
    metrics: Mapping[str, float]
    checkpoint: str | None = None
    best_checkpoint: str | None = None
    seconds: float = 0.0
    took: Sequence[float] = field(default=(0.0, 0.0), compare=False)


@dataclass(frozen=True)
class Ended:
    """The end of a trial: why, its best value and step, the checkpoint of the best weights, and numbers to keep."""

    cause: Cause
    value: float | None = None
    step: int | None = None
    checkpoint: str | None = None
    reason: str = ""
    plugin: str | None = None
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Saved:
    """A checkpoint between two evaluations, because the last is old; nothing was judged. `leaves`: it was written
    because the worker has to go (SIGTERM), and no message follows."""

    step: int
    checkpoint: str
    seconds: float = 0.0
    leaves: bool = False


@dataclass(frozen=True)
class Beat:
    """A sign of life between two evaluations: so many of so many steps are done, in so many seconds. `judges`: it comes
    out of an evaluation."""

    step: int
    steps: int
    seconds: float
    judges: bool = False


def last_line(reason: str) -> str:
    """What a traceback comes to, as a part of a sentence."""
    return reason.strip().rpartition("\n")[2].rstrip(".")


Message = Reported | Saved | Beat | Ended
_TYPES: dict[str, type[Reported | Saved | Beat | Ended]] = {
    each.__name__: each for each in (Reported, Saved, Beat, Ended)
}


def to_plain(message: Message) -> dict[str, Any]:
    """Return a message as plain values."""
    return {"type": type(message).__name__, **asdict(message)}


def from_plain(plain: Mapping[str, Any]) -> Message:
    """Read what `to_plain` wrote."""
    values = {name: value for name, value in plain.items() if name != "type"}
    return _TYPES[plain["type"]](**values)
