"""One trial's training: steps, evaluations, patience, checkpoints. A generator of messages, so that whoever runs it
decides after each whether it goes on.

Shapes: B batch, L length, N rows.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from deepmine_auto.contracts import Batch, Optimizer, Prepared, Task, TrainingFacts
from deepmine_auto.host import Host
from deepmine_auto.messages import Assignment, Ended, Message, Reported, attempt_folder
from deepmine_auto.model.assemble import Model, build_model, task_of, used
from deepmine_auto.space import plugin_from
from deepmine_auto.training import checkpoint
from deepmine_auto.training.batching import Columns, evaluation_order, training_order
from deepmine_auto.training.prepared import ready
from deepmine_auto.training.recipe import Recipe, Schedule

EVALUATION_ROWS = 256
SECONDS_BETWEEN_CHECKPOINTS = 30.0
WRITING_SHARE = 20.0
"""A checkpoint is due after so many times what writing one takes, or after the seconds above, whichever is later."""


def device_here() -> torch.device:
    """The device that torch gives a worker; Ray has already chosen which GPUs it sees."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def outputs_of(
    model: Model, weights: Mapping[str, Tensor] | None, columns: Columns, device: torch.device
) -> np.ndarray:
    """The model's outputs (N, ...) for all rows, in their order, with other weights put in its place if given."""
    outputs: np.ndarray | None = None
    model.eval()
    with torch.inference_mode():
        for indices in evaluation_order(columns.lengths, EVALUATION_ROWS):
            batch = columns.batch(indices, device)
            args = (batch.tokens_BL, batch.keep_BL)
            mixed = model(*args) if weights is None else functional_call(model, dict(weights), args)
            found = mixed.out.float().cpu().numpy()
            outputs = np.empty((len(columns), *found.shape[1:]), found.dtype) if outputs is None else outputs
            outputs[indices] = found
    assert outputs is not None
    return outputs


@dataclass
class Progress:
    """What a checkpoint must know beside weights: where the trial stands, and its best so far."""

    step: int = 0
    best: float | None = None
    best_step: int = 0
    best_checkpoint: str | None = None
    stale: int = 0
    seconds: float = 0.0


class Training:
    """A model with its optimizer and techniques on its way through one assignment."""

    def __init__(self, assignment: Assignment, host: Host) -> None:
        self.assignment = assignment
        self.folder = Path(assignment.folder)
        self.device = device_here()
        params = assignment.params
        self.task: Task = task_of(assignment.task, params, host)
        self.prepared: Prepared
        self.prepared, self.train, self.validation = ready(self.folder, assignment.split, self.task)
        self.recipe = plugin_from(Recipe, params, "training")
        self.schedule = plugin_from(Schedule, params, "schedule")
        self.per_epoch = math.ceil(len(self.train) / self.recipe.batch)
        self.steps = self.per_epoch * self.recipe.epochs
        torch.manual_seed(assignment.seed)
        self.model = build_model(params, self.task, self.prepared, host).to(self.device)
        self.optimizer = self._optimizer(host)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.generator = torch.Generator().manual_seed(assignment.seed)
        facts = TrainingFacts(self.model, self.prepared, self.steps, self.generator)
        self.techniques = {name: self._technique(host, name).build(facts) for name in used(params, "technique")}
        self.progress = Progress()
        self.written = (time.monotonic(), 0.0)
        self._go_on()

    def _optimizer(self, host: Host) -> torch.optim.Optimizer:
        kind = self.assignment.params["optimizer/kind"]
        optimizer: Optimizer = plugin_from(host.get("optimizer", kind), self.assignment.params, f"optimizer/{kind}")
        return optimizer.build(each for each in self.model.parameters() if each.requires_grad)

    def _technique(self, host: Host, name: str) -> Any:
        return plugin_from(host.get("technique", name), self.assignment.params, f"technique/{name}")

    # -- the road ----------------------------------------------------------------------------------------------------

    def messages(self) -> Iterator[Message]:
        """Train and report until the budget ends or patience does. A diverged trial ends at its last finite step."""
        begun, share = time.monotonic() - self.progress.seconds, self._share()
        for stop in self.recipe.evaluations(self.steps):
            if stop <= self.progress.step:
                continue
            if self.progress.stale >= self.recipe.patience:  # asked first: a checkpoint may stand where patience ended
                yield self._end("patience")
                return
            finite = self._train_until(stop)
            metrics = self._judge() if finite else {}
            value = metrics.get(self.assignment.objective, math.nan)
            if not math.isfinite(value):
                yield self._end("diverged")
                return
            before, share = share, self._share()
            self.progress.seconds = time.monotonic() - begun
            path = self._note(value, any(before < rung <= share for rung in self.assignment.rungs))
            best = self.progress.best_checkpoint
            yield Reported(self.progress.step, share, value, metrics, path, best, self.progress.seconds)
        yield self._end("budget")

    def _share(self) -> int:
        return round(1000 * self.progress.step / self.steps)

    def _end(self, cause: Any) -> Ended:
        best = self.progress
        return Ended(cause, best.best, best.best_step, best.best_checkpoint, facts=self.facts())

    def facts(self) -> dict[str, float]:
        """Numbers that a trial's row keeps."""
        count = sum(each.numel() for each in self.model.parameters())
        return {"params_million": round(count / 1e6, 4), "seconds": round(self.progress.seconds, 3)}

    # -- steps -------------------------------------------------------------------------------------------------------

    def _train_until(self, stop: int) -> bool:
        """Take steps up to `stop`; return whether every loss was finite."""
        self.model.train()
        total = torch.zeros((), device=self.device)
        while self.progress.step < stop:
            epoch, at = divmod(self.progress.step, self.per_epoch)
            order = training_order(self.train.lengths, self.recipe.batch, [self.assignment.seed, epoch])
            for indices in order[at : at + stop - self.progress.step]:
                total += self._step(self.train.batch(indices, self.device))
        return bool(torch.isfinite(total))

    def _step(self, batch: Batch) -> Tensor:
        for each in self.techniques.values():
            batch = each.on_batch(batch)
        mixed = self.model(batch.tokens_BL, batch.keep_BL)
        loss = self.task.loss(mixed.out, batch.targets, self.prepared)
        for each in self.techniques.values():
            loss = each.on_loss(loss, mixed.out, batch.targets)
        for extra in mixed.losses.values():
            loss = loss + extra
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        factor = self.schedule.factor(self.progress.step, self.steps)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.step()
        for each in self.techniques.values():
            each.after_step(self.model)
        self.progress.step += 1
        return loss.detach()

    # -- judging -----------------------------------------------------------------------------------------------------

    def evaluated(self) -> Mapping[str, Tensor] | None:
        """The weights that a technique wants judged and exported, or None for the model's own."""
        found = (each.evaluated(self.model) for each in self.techniques.values())
        return next((each for each in found if each is not None), None)

    def _judge(self) -> dict[str, float]:
        outputs = outputs_of(self.model, self.evaluated(), self.validation, self.device)
        if not np.isfinite(outputs).all():
            return {}
        return self.task.scores(outputs, self.validation.targets)

    def _note(self, value: float, at_rung: bool) -> str | None:
        """Update the best and patience, and write a checkpoint if one is due; return its path in the folder."""
        larger = self.task.directions[self.assignment.objective] == "maximize"
        best = self.progress.best
        better = best is None or (value > best if larger else value < best)
        self.progress.stale = 0 if better else self.progress.stale + 1
        path = str(self._place().relative_to(self.folder))
        if better:
            self.progress.best, self.progress.best_step = value, self.progress.step
            self.progress.best_checkpoint = path
        if not (better or at_rung or self._due()):
            return None
        start = time.monotonic()
        self._write(self._place())
        self.written = (time.monotonic(), time.monotonic() - start)
        return path

    def _due(self) -> bool:
        last, took = self.written
        return time.monotonic() - last > max(SECONDS_BETWEEN_CHECKPOINTS, WRITING_SHARE * took)

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def _place(self) -> Path:
        attempt = attempt_folder(*self.assignment.key, self.assignment.attempt)
        return self.folder / attempt / f"step-{self.progress.step:07d}"

    def _write(self, place: Path) -> None:
        tensors, optimizer = checkpoint.flatten_optimizer(self.optimizer)
        named = {f"model.{name}": each for name, each in self.model.state_dict().items()}
        named |= {f"optimizer.{name}": each for name, each in tensors.items()}
        for name, each in self.techniques.items():
            named |= {f"technique.{name}.{key}": value for key, value in each.state_dict().items()}
        named["rng.torch"] = torch.get_rng_state()
        named["rng.generator"] = self.generator.get_state()
        if torch.cuda.is_available():
            named["rng.cuda"] = torch.cuda.get_rng_state()
        checkpoint.save(place, named, {"progress": asdict(self.progress), "optimizer": optimizer})

    def _go_on(self) -> None:
        """Restore the newest checkpoint that is whole; without one, the trial begins anew."""
        for path in self.assignment.checkpoints:
            try:
                self._restore(*checkpoint.load(self.folder / path))
                return
            except checkpoint.Damaged as damaged:
                print(damaged, file=sys.stderr)

    def _restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(checkpoint.under("model", tensors))
        checkpoint.restore_optimizer(self.optimizer, checkpoint.under("optimizer", tensors), state["optimizer"])
        for name, each in self.techniques.items():
            each.load_state_dict(checkpoint.under(f"technique.{name}", tensors))
        torch.set_rng_state(tensors["rng.torch"])
        self.generator.set_state(tensors["rng.generator"])
        if "rng.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["rng.cuda"])
        self.progress = Progress(**state["progress"])
