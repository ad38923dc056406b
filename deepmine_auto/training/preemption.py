"""A worker that is told to go, as a cloud tells it before it takes a machine away: it saves at the next step's end."""

from __future__ import annotations

_asked = False


def ask_to_stop(*_signal_and_frame: object) -> None:
    """Let every training of this process write a checkpoint at the next step's end and say `Saved`, its last message.

    It only sets a flag, so it may stand as a signal's handler. Nothing takes it back: the process is to end.
    """
    global _asked
    _asked = True


def asked_to_stop() -> bool:
    """Whether `ask_to_stop` was called in this process."""
    return _asked
