"""One trial's training: steps, evaluations, patience, checkpoints. A generator of messages, so that whoever runs it
decides after each whether it goes on.

Shapes: B batch, L length, N rows.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepmine_auto.contracts import Applied, Backbone, Batch, Optimizer, Prepared, Schedule, Task, TrainingFacts
from deepmine_auto.errors import DeepmineError
from deepmine_auto.host import Host
from deepmine_auto.messages import (
    BEFORE_TASK,
    OUT_OF_PATIENCE,
    WHOLE,
    Assignment,
    Beat,
    Ended,
    Message,
    Reported,
    Saved,
    attempt_folder,
)
from deepmine_auto.model.assemble import Model, backbone_of, build_model, task_of, used
from deepmine_auto.model.guard import Refused
from deepmine_auto.pretrained.memory import remember
from deepmine_auto.pretrained.packing import pack
from deepmine_auto.pretrained.seen import leave_unseen
from deepmine_auto.space import plugin_from
from deepmine_auto.training import checkpoint
from deepmine_auto.training.batching import Columns, training_batches
from deepmine_auto.training.groups import split_by_rate
from deepmine_auto.training.measure import costs_of, params_million
from deepmine_auto.training.outputs import EVALUATION_ROWS, outputs_in_turn
from deepmine_auto.training.parts import InParts
from deepmine_auto.training.prepared import ready
from deepmine_auto.training.recipe import Recipe, WarmUp
from deepmine_auto.training.state import Progress, collect, restore
from deepmine_auto.training.step import take_step
from deepmine_auto.training.team import Alone

BEAT_SECONDS = 2.0
"""So often a trial gives a sign of life between two evaluations."""

SECONDS_BETWEEN_CHECKPOINTS = 30.0
WRITING_SHARE = 20.0
"""A checkpoint is due after so many times what writing one takes, or after the seconds above, whichever is later."""


def device_here() -> torch.device:
    """The device that torch gives a process. Whoever started it has chosen which GPUs it sees; where all are hidden,
    there is none, though torch may have counted them before."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    return torch.device("cuda" if torch.cuda.is_available() and not hidden else "cpu")


class Training:
    """A model with its optimizer and techniques on its way through one assignment, alone or as one of a team.

    Of all its steps the last `steps` are those of the task; `before` them come those of self-pretraining.
    """

    def __init__(self, assignment: Assignment, host: Host, team: Alone | None = None) -> None:
        self.assignment, self.host, self.team = assignment, host, team or Alone()
        self.folder = Path(assignment.folder)
        self.device = device_here()
        params = assignment.params
        self.task: Task = task_of(assignment.task, params, host)
        backbone = backbone_of(params, host)
        self.prepared: Prepared
        self.prepared, self.train, self.validation, self.unlabelled, paraphrases = ready(
            self.folder, assignment.split, self.task, backbone
        )
        self.recipe = plugin_from(Recipe, params, "training")
        self.warm_up = plugin_from(WarmUp, params, "schedule")
        self.schedule: Schedule = self._one_of("schedule")
        self.steps = self.recipe.steps(len(self.train))
        torch.manual_seed(assignment.seed)
        self.model = self._begun(backbone)
        self._spare_work(paraphrases)
        self.adapting: list[Any] = [each for each in self.model.modules() if callable(getattr(each, "step", None))]
        self.losses: dict[str, Tensor] = {}
        self.generator = torch.Generator().manual_seed(assignment.seed)
        self.techniques = self._techniques(paraphrases)
        self._refuse_two_judged()
        self.before = max((each.before_task() for each in self.techniques.values()), default=0)
        self.renew_optimizer()
        self.progress = Progress()
        self.newest: str | None = None
        self.written, self.took = (time.monotonic(), 0.0), (0.0, 0.0)
        self._go_on()
        self._begin_order()
        self.parts = 2**assignment.halvings * max([1, *(each.parts() for each in self.techniques.values())])
        self.forward = self.team.over(InParts(self.model, self.parts))
        self.begun = time.monotonic() - self.progress.seconds
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def _begun(self, backbone: Backbone) -> Model:
        """The model with the weights that training begins with, on its device."""
        model = build_model(self.assignment.params, self.task, self.prepared, self.host)
        backbone.begin(model.backbone)
        model.to(self.device)
        return model

    def _spare_work(self, paraphrases: Columns | None) -> None:
        """Let a pretrained model compute once what is frozen, read texts side by side, and move no vector of a word
        that no row has."""
        stack = self.model.backbone
        worth = self.recipe.reads(len(self.train)) >= len(self.train)  # else most of it would be computed in vain
        remember(stack, self.folder / "prepared", (self.train, self.validation), worth=worth)
        pack(stack, self.train)
        read = [each for each in (self.train, self.unlabelled, paraphrases) if each is not None]
        leave_unseen(stack, read, getattr(self.prepared, "unknown", None))

    def _techniques(self, paraphrases: Columns | None) -> dict[str, Any]:
        told = {name: each for name in ("unknown", "marks") if (each := getattr(self.prepared, name, None)) is not None}
        reworded = {} if paraphrases is None else paraphrases.by_target()
        facts = TrainingFacts(self.model, self.prepared, self.steps, self.generator, paraphrases=reworded, **told)
        params, names = self.assignment.params, used(self.assignment.params, "technique")
        chosen = {name: plugin_from(self.host.get("technique", name), params, f"technique/{name}") for name in names}
        return {name: each.build(facts) for name, each in chosen.items()}

    def renew_optimizer(self) -> None:
        """Begin with an optimizer that remembers nothing."""
        chosen: Optimizer = self._one_of("optimizer")
        self.optimizer = chosen.build(each for each in self.model.parameters() if each.requires_grad)
        split_by_rate(self.optimizer, self._factors())
        self.rates = [group["lr"] for group in self.optimizer.param_groups]

    def _one_of(self, kind: str) -> Any:
        name = self.assignment.params[f"{kind}/kind"]
        return plugin_from(self.host.get(kind, name), self.assignment.params, f"{kind}/{name}")

    def _refuse_two_judged(self) -> None:
        judged = [name for name, each in self.techniques.items() if type(each).evaluated is not Applied.evaluated]
        if len(judged) > 1:
            what = f"{' and '.join(judged)} would both put other weights in the place of those that were trained."
            raise Refused(what, "Search one of them.")

    def _factors(self) -> dict[nn.Parameter, float]:
        """What the techniques multiply the learning rate of each weight by."""
        weights, factors = dict(self.model.named_parameters()), defaultdict[nn.Parameter, float](lambda: 1.0)
        for each in self.techniques.values():
            for name, factor in each.rates(self.model).items():
                factors[weights[name]] *= factor
        return factors

    def _odds(self) -> np.ndarray | None:
        """How often each training row is drawn, where a technique says so."""
        found = [odds for each in self.techniques.values() if (odds := each.odds(self.train.targets)) is not None]
        return np.prod(found, 0) if found else None

    def _begin_order(self) -> None:
        """Choose the rows of each batch, from the step on where the training stands. The task has epochs of its own."""
        step = self.progress.step
        at = step - self.before if step >= self.before else step
        self.batches = self._order(self.train, at, self._odds())
        self.loose = self._order(self.unlabelled, at) if self.unlabelled and self.learns_loose else None

    @property
    def learns_loose(self) -> bool:
        """Whether a step may work off rows without labels."""
        names = used(self.assignment.params, "technique")
        return self.before > 0 or any(self.host.get("technique", each).learns_from == "unlabelled" for each in names)

    def _order(self, columns: Columns, at: int, odds: np.ndarray | None = None) -> Iterator[np.ndarray]:
        chosen, seed = self.recipe, self.assignment.seed
        return training_batches(columns.lengths, chosen.batch, seed, at, odds, chosen.batching)

    def draw(self) -> tuple[Batch, Batch | None]:
        """The batch of the next step, and one without labels where the study has such rows and learns from them. That
        of the first step of the task begins an epoch, and the optimizer anew: what it remembers is of another loss."""
        if self.progress.step == self.before > 0:
            self.renew_optimizer()
            self._begin_order()
        loose = self.unlabelled.batch(next(self.loose), self.device) if self.unlabelled and self.loose else None
        return self.train.batch(next(self.batches), self.device), loose

    # -- the road ----------------------------------------------------------------------------------------------------

    def messages(self) -> Iterator[Message]:
        """Train and report until the budget ends or patience does. A diverged trial ends at its last finite step. One
        that is asked to stop ends with `Saved`, and goes on from there as if it had not. There are more of these where
        evaluations are far apart."""
        for of_task in self.recipe.evaluations(self.steps, len(self.validation)):
            stop = self.before + of_task
            if stop <= self.progress.step:
                continue
            if self._out_of_patience:  # asked first: a checkpoint may stand where patience ended
                yield self._end("patience")
                return
            if not (yield from self._towards(stop)):
                return
            report = yield from self._report()
            if report is None:
                yield self._end("diverged")
                return
            yield report
        yield self._end("budget")

    def _towards(self, stop: int) -> Generator[Message, None, bool]:
        """Train up to `stop`, with signs of life; return whether the trial came there, and goes on."""
        ahead, said = 1, time.monotonic()
        while self.progress.step < stop:
            start, goal = time.monotonic(), min(stop, self.progress.step + ahead)
            if not self._train_until(self.team.agree(self.progress.step, goal)):
                yield self._end("diverged")
                return False
            if self.progress.step < goal:
                yield (yield from self._saved(leaves=True))
                return False
            if self.progress.step < stop and self._due():
                yield (yield from self._saved())
            now = time.monotonic()
            ahead = 2 * ahead if now - start < BEAT_SECONDS / 2 else max(1, ahead // 2)
            if now - said > BEAT_SECONDS:
                yield self._beat()
                said = now
        return True

    def _beat(self) -> Beat:
        return Beat(self.progress.step, self.before + self.steps, time.monotonic() - self.begun)

    def follow(self) -> Iterator[Message]:
        """Take every step with the leader of the team, and say nothing, until whoever runs the team ends it."""
        while True:
            self._train_until(self.team.agree(self.progress.step, self.progress.step))
        yield  # a generator of no messages

    def _report(self) -> Generator[Beat, None, Reported | None]:
        """Judge and note where the training stands; None where the outputs are not finite."""
        self.progress.costs = self.progress.costs or costs_of(self)
        metrics = yield from self._judge()
        value = metrics[self.assignment.objective] if metrics else math.nan
        if not math.isfinite(value):
            return None
        before, share = self._share(self.progress.judged), self._share(self.progress.step)
        self.progress.judged = self.progress.step
        self.progress.seconds = time.monotonic() - self.begun
        path = yield from self._note(value, any(before < rung <= share for rung in self.assignment.rungs))
        best, seconds = self.progress.best_checkpoint, self.progress.seconds
        # of the last step: a mean since the last report would be another one after a restart
        metrics |= {**{f"loss/{name}": float(each) for name, each in self.losses.items()}, **self.progress.costs}
        metrics |= {BEFORE_TASK: self.before / (self.before + self.steps)} if self.before else {}
        metrics |= {OUT_OF_PATIENCE: 1.0} if self._out_of_patience else {}
        return Reported(self.progress.step, share, value, metrics, path, best, seconds, self.took)

    def _saved(self, leaves: bool = False) -> Generator[Beat, None, Saved]:
        self.progress.seconds = time.monotonic() - self.begun
        return Saved(self.progress.step, (yield from self._write()), self.progress.seconds, leaves)

    @property
    def _out_of_patience(self) -> bool:
        return self.progress.stale >= self.recipe.patience

    def _share(self, step: int) -> int:
        return round(WHOLE * max(0, step - self.before) / self.steps)

    def _end(self, cause: Any) -> Ended:
        best = self.progress
        facts = {**best.costs, **self.facts()}
        return Ended(cause, best.best, best.best_step, best.best_checkpoint, facts=facts)

    def facts(self) -> dict[str, float]:
        """Numbers that a trial's row keeps."""
        read = self.recipe.read_in(self.progress.step - self.before, len(self.train))
        part = {"training_rows": read} if read < len(self.train) else {}
        return {"params_million": params_million(self.model), "seconds": round(self.progress.seconds, 3), **part}

    # -- steps -------------------------------------------------------------------------------------------------------

    def _train_until(self, stop: int) -> bool:
        """Take steps up to `stop`, or until asked to stop; return whether every loss was finite."""
        self.model.train()
        total = torch.zeros((), device=self.device)
        for _ in range(self.progress.step, stop):
            if self.team.stops_at(self.progress.step):
                break
            total += take_step(self, *self.draw())
        return bool(torch.isfinite(self.team.sum(total)))

    # -- judging -----------------------------------------------------------------------------------------------------

    def evaluated(self) -> Mapping[str, Tensor] | None:
        """The weights that a technique wants judged and exported, or None for the model's own."""
        found = (each.evaluated(self.model) for each in self.techniques.values())
        return next((each for each in found if each is not None), None)

    def _judge(self) -> Generator[Beat, None, dict[str, float]]:
        rows = max(1, EVALUATION_ROWS // self.parts)
        start = time.monotonic()
        turns = outputs_in_turn(self.model, self.evaluated(), self.validation, self.device, rows)
        outputs = yield from self._alive(turns)
        computed = time.monotonic()
        if not np.isfinite(outputs).all():
            return {}
        if not any(self.took):
            self.task.scores(outputs, self.validation.targets)  # the first may import something
        scoring = time.monotonic()
        scores = self.task.scores(outputs, self.validation.targets)
        self.took = computed - start, time.monotonic() - scoring
        if lacking := self.task.directions.keys() - scores.keys():
            what = f"The task '{self.task.name}' says nothing of its score '{min(lacking)}'."
            raise DeepmineError(what, "Let `scores` return each name of `directions`.")
        return {name: float(each) for name, each in scores.items()}  # NumPy's numbers cannot be sent

    def _alive(self, turns: Iterator[np.ndarray]) -> Generator[Beat, None, np.ndarray]:
        """Evaluate, with signs of life: many rows may take a large model longer than training from one to the next."""
        said = time.monotonic()
        for outputs in turns:  # noqa: B007 the last are whole, and what is asked for
            if time.monotonic() - said > BEAT_SECONDS:
                yield replace(self._beat(), judges=True)
                said = time.monotonic()
        return outputs

    def _note(self, value: float, at_rung: bool) -> Generator[Beat, None, str | None]:
        """Tell the techniques, update the best and patience, and write a checkpoint if one is due; return its path in
        the folder."""
        larger = self.task.directions[self.assignment.objective] == "maximize"
        for each in self.techniques.values():
            each.judged(value if larger else -value)
        best = self.progress.best
        better = best is None or (value > best if larger else value < best)
        self.progress.stale = 0 if better else self.progress.stale + 1
        if better:
            self.progress.best, self.progress.best_step = value, self.progress.step
            self.progress.best_checkpoint = self._place()
        return (yield from self._write()) if better or at_rung or self._due() else None

    def _due(self) -> bool:
        last, took = self.written
        return time.monotonic() - last > max(SECONDS_BETWEEN_CHECKPOINTS, WRITING_SHARE * took)

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def _place(self) -> str:
        attempt = attempt_folder(*self.assignment.key, self.assignment.attempt)
        return f"{attempt}/step-{self.progress.step:07d}"

    def _write(self) -> Generator[Beat, None, str]:
        """Write a checkpoint unless this step has one; return its path in the study's folder. While that waits for the
        disk, it gives signs of life."""
        path = self._place()
        if path != self.newest:  # a report may name it already: it must not be away for a moment
            start = time.monotonic()
            for _ in checkpoint.saving(self.folder / path, *collect(self)):
                yield self._beat()
            self.newest, self.written = path, (time.monotonic(), time.monotonic() - start)
        return path

    def _go_on(self) -> None:
        """Restore the newest checkpoint that is whole; without one, the trial begins anew."""
        for path in self.assignment.checkpoints:
            try:
                restore(self, *checkpoint.load(self.folder / path))
                return
            except checkpoint.Damaged as damaged:
                print(damaged, file=sys.stderr)
