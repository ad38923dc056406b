"""Processor cores that a worker keeps to: what one has in its cache, no other throws out, and no scheduler moves it to
another socket.

A core is claimed by a name of the kernel's (an abstract socket of Linux) that one process of a machine can have at a
time and that ends with it, whatever ends it. So all studies of a machine share its cores out, and leave nothing behind.
Containers have names of their own each: they would keep to the same cores, unless each is bound to its own.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

TOPOLOGY = Path("/sys/devices/system/cpu")

CLAIMING_SECONDS = 3.0
"""A worker waits so long for cores: one that it takes the place of may be on its way out."""

_held: list[socket.socket] = []
"""The names that this process has, until it ends."""


def can_keep() -> bool:
    """Whether a process of this system can keep to cores."""
    return hasattr(os, "sched_setaffinity")


def keep_to_cores(count: int) -> None:
    """Bind this thread, and all that it starts, to `count` cores that no other worker keeps to. Where there are none,
    or 0 are asked for, it runs where it always did."""
    if not count or not can_keep():
        return
    until = time.monotonic() + CLAIMING_SECONDS
    while not (cores := _claimed(cores_in_order(), count)):
        if time.monotonic() > until:
            return
        time.sleep(CLAIMING_SECONDS / 30)
    os.sched_setaffinity(0, cores)


def cores_in_order() -> list[int]:
    """The cores that this process may use, those first that share nothing: of the threads of a core one, and only then
    their siblings."""
    return sorted(os.sched_getaffinity(0), key=lambda core: (_siblings(core).index(core), core))


def _siblings(core: int) -> list[int]:
    """The threads of a core, itself among them: `0,32` or `0-1`."""
    found = [core]
    with suppress(OSError, ValueError):  # a system that does not say
        told = (TOPOLOGY / f"cpu{core}" / "topology" / "thread_siblings_list").read_text()
        ranges = [[int(end) for end in each.split("-")] for each in told.strip().split(",")]
        found = [each for ends in ranges for each in range(ends[0], ends[-1] + 1)]
    return found if core in found else [core]


def _claimed(cores: Sequence[int], count: int) -> set[int]:
    """So many of these cores, which are this process's from now on; none where fewer are free."""
    claims: dict[int, socket.socket] = {}
    for core in cores:
        if len(claims) < count and (claim := _claim(core)):
            claims[core] = claim
    if len(claims) < count:
        for claim in claims.values():
            claim.close()
        return set()
    _held.extend(claims.values())
    return set(claims)


def _claim(core: int) -> socket.socket | None:
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0deepmine-auto/core/{core}")
    except OSError:  # another process has it
        claim.close()
        return None
    return claim
