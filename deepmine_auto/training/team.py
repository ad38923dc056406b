"""Who shares a trial's batches: one process alone, or several ranks, of which the first leads.

Shapes: B batch, L length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from deepmine_auto.contracts import Mixed
from deepmine_auto.errors import DeepmineError
from deepmine_auto.training.parts import scaled
from deepmine_auto.training.preemption import asked_to_stop

Forward = Callable[[Tensor, Tensor], Mixed]

NEVER, ASKED = 2**62, -1
"""What `StopAt` holds while nobody has asked the ranks to stop, and until their leader has said at which step."""


class StopAt(Protocol):
    """A number in memory that the ranks and their parent share: the step at which they stop."""

    value: int


class Alone:
    """One process, which has every batch to itself."""

    leads = True

    def over(self, model: nn.Module) -> Forward:
        """Return what makes the outputs of a whole batch."""
        return model

    def agree(self, step: int, stop: int) -> int:
        """Return where the training that stands at `step` trains up to."""
        del step
        return stop

    def stops_at(self, step: int) -> bool:
        """Whether nobody takes another step after `step`."""
        del step
        return asked_to_stop()

    def draw_for(self, seed: int, step: int) -> None:
        """Keep the stream of random numbers as it is."""

    def sum(self, value: Tensor) -> Tensor:
        """Return a value that each has, added up."""
        return value


class Ranks(Alone):
    """One of several processes, each with a copy of the model.

    Every rank makes every batch and works off its share of the rows. The outputs are put together before the loss, and
    extra losses are added up, so each knows the loss of the whole batch, and its own gradient is its part of the whole
    one.
    """

    def __init__(self, rank: int, size: int, device: torch.device, stop_at: StopAt) -> None:
        self.rank, self.size, self.device, self.stop_at = rank, size, device, stop_at
        self.leads = rank == 0
        self.begun = False

    def over(self, model: nn.Module) -> Forward:
        """Return what makes the outputs of a whole batch: this rank's with their gradient, those of others without."""
        # a variant may leave weights out, and then torch must not wait for their gradients
        copy = DistributedDataParallel(model, find_unused_parameters=True)
        copy.register_comm_hook(None, lambda _, bucket: _added_up(bucket.buffer()))

        def forward(tokens_BL: Tensor, keep_BL: Tensor) -> Mixed:
            # between two passes of a step, buffers would be written to that the graph of the first one needs
            copy.broadcast_buffers, self.begun = not self.begun, True
            rows = share(self.rank, self.size, len(tokens_BL))
            count = rows.stop - rows.start
            taken = rows if count else slice(0, 1)  # all take part in a step; a row that is not theirs counts nothing
            mixed: Mixed = copy(tokens_BL[taken], keep_BL[taken])
            out = with_others(mixed.out[:count], rows, len(tokens_BL))
            parts = scaled(mixed.losses, count / len(tokens_BL))
            return Mixed(out, losses={name: self.sum(each) for name, each in parts.items()})

        return forward

    def agree(self, step: int, stop: int) -> int:
        """Return where the leader trains up to. Raises DeepmineError where it stands at another step."""
        said = torch.tensor([step, stop], device=self.device)
        dist.broadcast(said, 0)
        if int(said[0]) != step:
            what = f"Rank {self.rank} goes on from step {step}, and rank 0 from step {int(said[0])}."
            raise DeepmineError(what, "The study's folder must be the same for all of them.")
        return int(said[1])

    def stops_at(self, step: int) -> bool:
        """Whether nobody takes another step after `step`.

        A rank may be one step ahead of the others, and on GPUs, which are met later than asked to, one more; so the
        leader chooses a step that nobody reaches without having met it before.
        """
        if self.leads and self.stop_at.value == ASKED:
            self.stop_at.value = step + 2
        return 0 <= self.stop_at.value <= step

    def draw_for(self, seed: int, step: int) -> None:
        """Begin a step: its first pass takes over the leader's buffers, and each rank has random numbers of its own.
        The leader's are in its checkpoints; those of others begin anew at each step, so that none need hold them."""
        self.begun = False
        if not self.leads:
            words = np.random.SeedSequence((seed, self.rank, step)).generate_state(1, np.uint64)
            torch.manual_seed(int(words[0]))

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a value over all ranks; its gradient is that of this rank's own part."""
        whole = value.detach().clone()
        dist.all_reduce(whole)
        return whole + (value - value.detach())


def share(rank: int, size: int, rows: int) -> slice:
    """The rows of a batch that a rank works off: as many as any other's, or one more."""
    return slice(rows * rank // size, rows * (rank + 1) // size)


def with_others(mine: Tensor, rows: slice, batch: int) -> Tensor:
    """The outputs (B, ...) of all ranks; `mine`, which stand at `rows`, alone carry a gradient."""
    whole = mine.new_zeros((batch, *mine.shape[1:]))
    whole[rows] = mine.detach()
    dist.all_reduce(whole)
    return torch.cat((whole[: rows.start], mine, whole[rows.stop :]))


def _added_up(mine: Tensor) -> Any:
    """A future of the sum of all ranks' gradients, each being a part of one; torch's own way is their mean."""
    return dist.all_reduce(mine, async_op=True).get_future().then(lambda future: future.value()[0])
