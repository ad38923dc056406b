"""Places where a test may end or disturb the program: `DEEPMINE_AUTO_FAILPOINT=after_ask:kill:3`.

That ends the process by SIGKILL when `after_ask` is reached for the third time. `raise` raises OSError instead.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

VARIABLE = "DEEPMINE_AUTO_FAILPOINT"
_reached: Counter[str] = Counter()


def reach(name: str) -> None:
    """Say that `name` is reached; nothing happens unless the environment names it."""
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    at, _, rest = wanted.partition(":")
    action, _, nth = rest.partition(":")
    if at != name:
        return
    _reached[name] += 1
    if _reached[name] == int(nth or 1):
        _act(name, action)


def _act(name: str, action: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise OSError(f"failpoint {name}")
