"""One trial on several devices of this machine: a process each, which share every batch (see `team.py`).

They speak to the process that starts them over pipes, in JSON. None outlives it, nor the generator of their messages.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist

from deepmine_auto.host import Host, the_host
from deepmine_auto.messages import Assignment, Ended, Message, Saved, from_plain, to_plain
from deepmine_auto.scratch import scratch
from deepmine_auto.training.ends import DeviceBroken, guarded
from deepmine_auto.training.loop import Training, device_here
from deepmine_auto.training.preemption import asked_to_stop
from deepmine_auto.training.team import ASKED, NEVER, Ranks, StopAt

LOOK_SECONDS = 0.2
"""So often the parent looks whether it was asked to stop."""

GRACE_SECONDS = 2.0
"""A rank that dies takes the others down: so long after an error we look whether one has died."""

PATIENCE = timedelta(days=1)
"""The ranks wait for each other while the leader judges or writes; that a trial hangs is for others to say."""

LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
PR_SET_PDEATHSIG = 1


class Rank(NamedTuple):
    """A process, and our end of its pipe."""

    process: SpawnProcess
    pipe: Connection


class Place(NamedTuple):
    """What a rank must know of the others: its number, how many there are, a file to meet at, when they stop."""

    number: int
    size: int
    meeting: Path
    stop_at: StopAt


def messages(assignment: Assignment) -> Iterator[Message]:
    """Yield what the leader of `assignment.processes` ranks sends, and the end of the first that cannot go on.

    A rank that died ends the trial as `lost`. The ranks die with the thread that runs this.
    """
    stop_at: StopAt = get_context("spawn").Value("q", NEVER, lock=False)
    with scratch("deepmine-ranks") as folder:
        size = assignment.processes
        places = [Place(each, size, folder / "meeting", stop_at) for each in range(size)]
        with _started(assignment, places) as ranks:
            while True:
                message = _hear(ranks, stop_at)
                yield message
                if isinstance(message, Ended) or (isinstance(message, Saved) and message.leaves):
                    return
                with suppress(OSError):  # whether the leader is still there is heard next
                    ranks[0].pipe.send_bytes(b"go on")


@contextmanager
def _started(assignment: Assignment, places: list[Place]) -> Iterator[list[Rank]]:
    """The ranks at work. None is left at the end, whatever that is."""
    ranks: list[Rank] = []
    try:
        ranks.extend(_start(assignment, each) for each in places)
        yield ranks
    finally:
        for each in ranks:
            each.process.kill()
        for each in ranks:
            each.process.join()
            each.pipe.close()


def _start(assignment: Assignment, place: Place) -> Rank:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    args = assignment.to_json(), place, theirs, os.getpid(), torch.get_num_threads()
    process = context.Process(target=_work, args=args, daemon=True)
    process.start()
    theirs.close()
    return Rank(process, ours)


def _hear(ranks: list[Rank], stop_at: StopAt) -> Message:
    """Wait for a message, and meanwhile pass it on when this process is asked to stop."""
    while True:
        if asked_to_stop() and stop_at.value == NEVER:
            stop_at.value = ASKED
        ready = wait([each.pipe for each in ranks] + [each.process.sentinel for each in ranks], LOOK_SECONDS)
        if dead := _dead(ranks, 0.0):
            return dead
        for each in ranks:
            if each.pipe in ready and (message := _received(each.pipe)):
                failed = isinstance(message, Ended) and message.reason
                return (failed and _dead(ranks, GRACE_SECONDS)) or message


def _received(pipe: Connection) -> Message | None:
    """A message; None where the other end is closed, as it is a moment before its process has ended."""
    try:
        return from_plain(json.loads(pipe.recv_bytes()))
    except (EOFError, OSError):
        return None


def _dead(ranks: list[Rank], seconds: float) -> Ended | None:
    """The end of a trial of which a rank dies within `seconds`."""
    if not (sentinels := wait([each.process.sentinel for each in ranks], seconds)):
        return None
    number, process = next((at, each.process) for at, each in enumerate(ranks) if each.process.sentinel in sentinels)
    process.join()
    code = process.exitcode or 0
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return Ended("lost", reason=f"Rank {number} of {len(ranks)} (process {process.pid}) {how}.")


# -- in a rank -------------------------------------------------------------------------------------------------------


def _work(text: str, place: Place, pipe: Connection, parent: int, threads: int) -> None:
    """Train as one of several, and wait after each message to be told to go on; after the last, to be ended."""
    _die_with(parent)
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # they reach a whole process group; what they mean is the parent's to say
    torch.set_num_threads(threads)
    assignment, host = Assignment.from_json(text), the_host()
    for message in _with_its_end(guarded(lambda: _training(assignment, host, place), assignment, host)):
        pipe.send_bytes(json.dumps(to_plain(message)).encode())
        pipe.recv_bytes()
    pipe.recv_bytes()


def _with_its_end(messages: Iterator[Message]) -> Iterator[Message]:
    """The messages, the last of which says so where the device is broken: this process has no other training."""
    try:
        yield from messages
    except DeviceBroken as broken:
        yield broken.end()


def _training(assignment: Assignment, host: Host, place: Place) -> Iterator[Message]:
    device = device_here()
    if device.type == "cuda":
        torch.cuda.set_device(place.number)
    for library in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", LOOPBACK)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=place.meeting.as_uri(),  # a file: a port could be taken by somebody else meanwhile
        rank=place.number,
        world_size=place.size,
        timeout=PATIENCE,
    )
    team = Ranks(place.number, place.size, device, place.stop_at)
    training = Training(assignment, host, team)
    return training.messages() if team.leads else training.follow()


def _die_with(parent: int) -> None:
    """Have the kernel end this process as soon as its parent is gone, however that went."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it went before we asked
        os._exit(1)
