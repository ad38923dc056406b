"""Single keys that a person presses while a study runs."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from typing import Any


class Keys:
    """Keys from standard input between `open` and `close`, where that is a terminal of ours; elsewhere none."""

    def __init__(self) -> None:
        self.saved: list[Any] | None = None

    def open(self) -> None:
        """Let keys come without a line end, and unseen. Ctrl-C still interrupts."""
        if _ours():
            self.saved = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.saved is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self.saved)
            self.saved = None

    def pressed(self) -> str:
        """The keys since the last call; never waits."""
        found = ""
        while self.saved is not None and select.select([sys.stdin], [], [], 0)[0]:
            read = os.read(sys.stdin.fileno(), 64)
            if not read:
                break
            found += read.decode(errors="ignore")
        return found


def _ours() -> bool:
    """Whether standard input is a terminal, and this command not in its background, where touching it would stop us."""
    if not sys.stdin.isatty():
        return False
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:  # a terminal that controls nobody has no background
        return True
