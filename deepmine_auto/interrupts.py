"""Ctrl-C and SIGTERM: both end a command at once, and what they leave can be resumed."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

CTRL_C = 130
TERMINATED = 143


class Terminated(KeyboardInterrupt):
    """SIGTERM. It is a KeyboardInterrupt, so that it passes wherever Ctrl-C passes."""


KINDS: dict[int, type[KeyboardInterrupt]] = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}
_received: list[int] = []


def listen() -> None:
    """Take both signals; to be called again after a library took one for itself, as Ray does."""
    for each in KINDS:
        signal.signal(each, _interrupt)


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    _received.append(number)
    raise KINDS[number]


def raise_if_lost() -> None:
    """Raise an interrupt again that somebody's bare `except` has swallowed, as some libraries have around imports."""
    if _received:
        raise KINDS[_received[-1]]


def exit_code(interrupt: BaseException | None) -> int:
    """The exit code that an interrupt ends with."""
    return TERMINATED if isinstance(interrupt, Terminated) else CTRL_C
