"""What can go wrong for a user: one sentence with its remedy, and the exit code that it ends with.

The command line shows every DeepmineError as its message alone; anything else keeps its traceback, because it is a bug.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar


class DeepmineError(Exception):
    """A failure that its message explains."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(f"{what} {remedy}".strip())
        self.what = what
        self.remedy = remedy


class BadInput(DeepmineError):
    """What the user gave cannot be used."""

    exit_code = 2


class MissingExtra(DeepmineError):
    """A library that this command needs is not installed."""

    exit_code = 3


class UnsafeEnvironment(DeepmineError):
    """The surroundings would put the user's data or machine at risk."""

    exit_code = 4


class StudyHeld(DeepmineError):
    """Another process is the writer of this study."""

    exit_code = 5


class DatabaseAway(DeepmineError):
    """The study database cannot be reached; what was done is kept."""

    exit_code = 6


class NothingLearned(DeepmineError):
    """The budget ended before any model could be told from another."""


class PluginError(DeepmineError):
    """A plugin is not what its contract says, and is set aside."""


def first_line(error: BaseException) -> str:
    """What another library's error says, as a part of a sentence; its name where it says nothing, as timeouts do."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")


def unknown(name: str, known: Iterable[str], what: str, remedy: str = "") -> BadInput:
    """Say that `name` is no `what`, and which known name is nearest.

    >>> str(unknown("slidng_window", ["sliding_window", "linear"], "attention"))
    "'slidng_window' is no attention. Did you mean 'sliding_window'?"
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    guess = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(names) or 'none'}."
    return BadInput(f"'{name}' is no {what}.", f"{guess} {remedy}".strip())
