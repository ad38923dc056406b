"""Ctrl-C and SIGTERM: both end a command at once, and what they leave can be resumed."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

CTRL_C = 130
TERMINATED = 143


class Terminated(KeyboardInterrupt):
    """SIGTERM. It is a KeyboardInterrupt, so that it passes wherever Ctrl-C passes."""


def listen() -> None:
    """Turn SIGTERM into Terminated; to be called again after a library took the signal for itself, as Ray does."""
    signal.signal(signal.SIGTERM, _terminated)


def _terminated(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


def exit_code(interrupt: BaseException | None) -> int:
    """The exit code that an interrupt ends with."""
    return TERMINATED if isinstance(interrupt, Terminated) else CTRL_C
