"""Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from deepmine_auto import interrupts
from deepmine_auto.terminal.watching import EventLines

SWALLOWED = """
import os, signal, sys
from deepmine_auto import interrupts
interrupts.listen()
try:
    os.kill(os.getpid(), {number})
except:  # as some libraries have it around their imports
    pass
try:
    interrupts.raise_if_lost()
except KeyboardInterrupt as interrupt:
    sys.exit(interrupts.exit_code(interrupt))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_that_a_library_swallowed_is_raised_again(number: int, code: int) -> None:
    done = subprocess.run([sys.executable, "-c", SWALLOWED.format(number=int(number))], check=False)
    assert done.returncode == code


def test_a_search_looks_for_lost_interrupts_after_each_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "_received", [signal.SIGTERM])
    with pytest.raises(interrupts.Terminated, match=r"^$"):
        EventLines(print, lambda: None).tick()


def test_without_an_interrupt_nothing_is_raised() -> None:
    EventLines(print, lambda: None).tick()
    assert interrupts._received == []
