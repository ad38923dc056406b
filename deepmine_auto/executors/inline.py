"""Trials one after the other in this process: tests, debugging, tiny studies.

A training that hangs hangs this process with it, so nobody asks the agenda what hangs: Ctrl-C and `resume` go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from deepmine_auto.host import Host
from deepmine_auto.messages import Assignment
from deepmine_auto.study.agenda import Agenda
from deepmine_auto.training.ends import DeviceBroken
from deepmine_auto.training.trial import messages

WAIT_SECONDS = 0.1


def run(agenda: Agenda, host: Host, tick: Callable[[], None]) -> None:
    """Work until the agenda is done; `tick` is called after each message."""
    with one_thread():
        while not agenda.done:
            assignment = agenda.next()
            if assignment is None:  # the database is away, or the clock went past the last rerun that fitted
                time.sleep(WAIT_SECONDS)
                continue
            with _ended_with_its_device(agenda, assignment):
                for message in messages(assignment, host):
                    keep = agenda.heard(assignment.key, message)
                    tick()
                    if not keep:
                        break


@contextmanager
def _ended_with_its_device(agenda: Agenda, assignment: Assignment) -> Iterator[None]:
    """End what broke the device: it is this process that has to go, and the next would break its own on it."""
    try:
        yield
    except DeviceBroken as broken:
        agenda.heard(assignment.key, broken.end())
        raise


@contextmanager
def one_thread() -> Iterator[None]:
    """Train as a worker does, because sums over other numbers of threads differ in their last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
