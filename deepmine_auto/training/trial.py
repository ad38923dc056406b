"""One assignment from its first message to its end, in this process or in several that it starts."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import torch

from deepmine_auto.host import Host
from deepmine_auto.messages import Assignment, Message
from deepmine_auto.training import parallel
from deepmine_auto.training.ends import guarded
from deepmine_auto.training.loop import Training


def messages(assignment: Assignment, host: Host) -> Iterator[Message]:
    """Yield reports, signs of life and checkpoints, and at last the end, whose cause says what stopped it; or a `Saved`
    that leaves, once this process is asked to stop. Nothing is trained while the generator waits, and closing it ends
    what it started. Ctrl-C alone passes through.

    Several processes find their plugins themselves: they know no other host than `the_host()`.
    """
    if assignment.processes > 1:
        return guarded(lambda: parallel.messages(assignment), assignment, host)
    return guarded(lambda: _alone(assignment, host), assignment, host)


def _alone(assignment: Assignment, host: Host) -> Iterator[Message]:
    let_go()
    return Training(assignment, host).messages()


def let_go() -> None:
    """Give back the GPU memory of what was trained before: a model may hold itself, and trials that share a GPU miss
    what torch keeps for another use."""
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()
