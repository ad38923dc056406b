"""What a model costs: the time of a forward pass, the memory of a training step, the number of parameters.

Shapes: B batch, L length.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

from deepmine_auto.contracts import Batch, Mixed
from deepmine_auto.pretrained.memory import forgotten
from deepmine_auto.training.batching import Columns, longest_run
from deepmine_auto.training.checkpoint import flatten_optimizer

if TYPE_CHECKING:
    from deepmine_auto.training.loop import Training

Loss = Callable[[Mixed, Tensor], Tensor]
"""From outputs with extra losses, and targets, to the loss of a training step."""

MB = 1e6
MOST_SECONDS, MOST_TIMES = 0.05, 8
"""Forward passes are timed until one of both is reached, but two at least: the first only warms up."""


def costs_of(training: Training) -> dict[str, float]:
    """Return `objectives.COSTS` of a training that has begun, on the device that it runs on.

    The time is that of the validation row of median length; the memory that of the longest rows that a step has to work
    off at once; where batches hold as many tokens as others, that of the most tokens with padding, although fewer of
    longer rows may take a little more. The training goes on as if nobody had measured.
    """
    model, device = training.model, training.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), forgotten(model):
        torch.manual_seed(0)  # what a step draws may decide what it keeps
        return {
            "latency_ms": round(latency_ms(model, _middle(training)), 4),
            "peak_mb": round(_peak_bytes(training) / MB, 4),
            "params_million": params_million(model),
        }


def _peak_bytes(training: Training) -> int:
    batch, loss = _longest(training), _loss_of(training)
    return peak_bytes(training.model, batch, loss, _kept(training), _passes(training))


def _middle(training: Training) -> Batch:
    order = np.argsort(training.validation.lengths, kind="stable")
    return training.validation.batch(order[[len(order) // 2]], training.device)


def _longest(training: Training) -> Batch:
    without_labels = training.unlabelled if training.learns_loose else None
    found = [_largest(each, training) for each in (training.train, without_labels) if each is not None]
    return max(found, key=lambda batch: batch.tokens_BL.numel())


def _largest(columns: Columns, training: Training) -> Batch:
    at_once = training.assignment.processes * training.parts
    batches = longest_run(columns.lengths, training.recipe.batch, training.recipe.batching)
    parts = [each[: math.ceil(len(each) / at_once)] for each in batches]
    return columns.batch(max(parts, key=lambda rows: len(rows) * columns.lengths[rows[0]]), training.device)


def _loss_of(training: Training) -> Loss:
    def loss(mixed: Mixed, targets: Tensor) -> Tensor:
        return sum(mixed.losses.values(), training.task.loss(mixed.out, targets, training.prepared))

    return loss


def _kept(training: Training) -> Iterator[Tensor]:
    """What optimizer and techniques hold from step to step."""
    yield from flatten_optimizer(training.optimizer)[0].values()
    for each in training.techniques.values():
        yield from each.holds()


def _passes(training: Training) -> int:
    """Of how many forward passes a step has the activations at once. Of a batch in parts it has those of one part."""
    more = sum(each.passes() - 1 for each in training.techniques.values())
    return 1 if training.parts > 1 else 1 + more


def params_million(model: nn.Module) -> float:
    """The number of parameters, frozen ones included, in millions."""
    return round(sum(each.numel() for each in model.parameters()) / 1e6, 4)


def latency_ms(model: nn.Module, row: Batch) -> float:
    """The median time of a forward pass as predictions make it, in milliseconds."""
    model.eval()
    begun = time.perf_counter()
    times: list[float] = []
    with torch.inference_mode():
        while len(times) < 2 or (len(times) < MOST_TIMES and time.perf_counter() - begun < MOST_SECONDS):
            start = time.perf_counter()
            model(row.tokens_BL, row.keep_BL)
            if row.tokens_BL.is_cuda:
                torch.cuda.synchronize(row.tokens_BL.device)
            times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[1:])


def peak_bytes(model: nn.Module, batch: Batch, loss: Loss, kept: Iterable[Tensor], passes: int = 1) -> int:
    """The peak memory of a training step, in bytes.

    On CUDA it is the most that this process has had allocated since its training began, a step on `batch` included. On
    a CPU, where torch does not count, it is the sum of what a step needs at once: parameters, their gradients, `kept`,
    and `passes` times what the forward pass on `batch` keeps for the backward pass. What single operations need
    meanwhile is left out.
    """
    model.train()
    # a forward pass may write to buffers: it gets copies
    buffers = {name: each.clone() for name, each in model.named_buffers()}
    moving = [each for each in model.parameters() if each.requires_grad]

    def forward() -> Tensor:
        return loss(functional_call(model, buffers, (batch.tokens_BL, batch.keep_BL)), batch.targets)

    if batch.tokens_BL.is_cuda:
        torch.autograd.grad(forward(), moving, allow_unused=True)
        return torch.cuda.max_memory_allocated(batch.tokens_BL.device)
    own = [*model.parameters(), *model.buffers()]
    return sum(map(nbytes, [*own, *moving, *kept])) + passes * _saved_bytes(forward, own)


def _saved_bytes(forward: Callable[[], Tensor], own: Iterable[Tensor]) -> int:
    """The bytes that autograd keeps after a forward pass, each piece of memory counted once, those of `own` not."""
    known = {each.untyped_storage().data_ptr() for each in own}
    kept: dict[int, torch.UntypedStorage] = {}  # holding them keeps their addresses from being used again

    def keep(tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        kept.setdefault(storage.data_ptr(), storage)

    with saved_tensors_hooks(keep, _never):
        forward()
    return sum(each.nbytes() for at, each in kept.items() if at not in known)


def _never(_packed: object) -> Tensor:
    raise AssertionError("nothing goes back through a forward pass that was only measured")


def nbytes(tensor: Tensor) -> int:
    """The bytes of a tensor's elements."""
    return tensor.numel() * tensor.element_size()
