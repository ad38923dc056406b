"""Ctrl-C, SIGTERM and SIGHUP: each ends a command at once, and what it leaves can be resumed."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

CTRL_C = 130
TERMINATED = 143
HUNG_UP = 129
CLOSED_PIPE = 141


class Terminated(KeyboardInterrupt):
    """SIGTERM. It is a KeyboardInterrupt, so that it passes wherever Ctrl-C passes."""


class HungUp(KeyboardInterrupt):
    """SIGHUP: the terminal is gone."""


KINDS: dict[int, type[KeyboardInterrupt]] = {
    signal.SIGINT: KeyboardInterrupt,
    signal.SIGTERM: Terminated,
    signal.SIGHUP: HungUp,
}
_received: list[int] = []
AGAIN = 0.01
"""So many seconds after an interrupt was lost in a destructor it is sent again."""


def listen() -> None:
    """Take the signals; to be called again after a library took one for itself, as Ray does.

    A command that was started to outlive its terminal (nohup) still does.
    """
    for each in KINDS:
        if each != signal.SIGHUP or signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, _interrupt)


def hear_in_destructors() -> None:
    """Raise an interrupt that came while Python ran a destructor once that is over: from inside, nothing is raised."""
    if getattr(sys.unraisablehook, "func", None) is not _unraisable:
        sys.unraisablehook = partial(_unraisable, sys.unraisablehook)


def deafen() -> None:
    """Hear no more: the command is over, and what is left is Python's own end."""
    for each in KINDS:
        signal.signal(each, signal.SIG_IGN)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    _received.append(number)
    if behind(sys.exception()) is None:  # a second Ctrl-C must not break off what the first one tidies up
        raise KINDS[number]


def _unraisable(tell: Callable[[UnraisableHookArgs], object], lost: UnraisableHookArgs) -> None:
    if isinstance(lost.exc_value, KeyboardInterrupt) and _received:
        threading.Timer(AGAIN, os.kill, (os.getpid(), _received[-1])).start()
    else:
        tell(lost)


def behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """The interrupt in whose handling an error was raised, or None."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error


def raise_if_lost() -> None:
    """Raise an interrupt again that somebody's bare `except` has swallowed, as some libraries have around imports."""
    if _received:
        raise KINDS[_received[-1]]


def exit_code(interrupt: BaseException | None) -> int:
    """The exit code that an interrupt ends with."""
    if isinstance(interrupt, HungUp):
        return HUNG_UP
    return TERMINATED if isinstance(interrupt, Terminated) else CTRL_C
