"""The kill matrix: every failpoint, reached for the n-th time, in each way. What comes of it is the same study."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from driving import AWAY, KILLED, ForkServer, Victim
from fakes import Desk
from undisturbed import assert_whole, found

TRIALS = 4

AWAY_FOR_A_WHILE = {"after": 100, "refuse": 60}
"""A database that is gone in the middle, so that there is an outbox."""

SITES: dict[str, tuple[int, ...]] = {
    "mid_ask": (1, 3),
    "after_ask": (1, 4),
    "after_attempt": (2, 6),
    "before_checkpoint_rename": (1, 4),
    "after_checkpoint_rename": (2, 5),
    "after_report": (1, 15),
    "after_show": (3, 13),
    "after_verdict": (1, 4),
    "before_tell": (1, 4),
    "mid_tell": (2, 4),
    "after_tell_commit": (1, 4),
    "before_sweep": (3, 6),
    "mid_rerun": (1, 3),
    "mid_export": (1,),
    "mid_outbox_append": (1, 3),
    "mid_replay": (1, 3),
}
"""Where a driver is disturbed, and the occurrences at which."""

NEED_AN_OUTBOX = ("mid_outbox_append", "mid_replay")

CASES = [
    *((name, "kill", nth) for name, occurrences in SITES.items() for nth in occurrences),
    *((name, action, occurrences[-1]) for action in ("raise", "away") for name, occurrences in SITES.items()),
]

ENDS = {"kill": (KILLED,), "raise": (1,), "away": (0, AWAY)}
"""How a driver may end that was disturbed so."""

NUMBERS = count()


def named(package: Path) -> set[str]:
    """The failpoints that the program has."""
    reach = re.compile(r'failpoints\.reach\("(\w+)"\)')
    return {name for file in package.rglob("*.py") for name in reach.findall(file.read_text(encoding="utf-8"))}


@dataclass
class Ground:
    """One database, what forks drivers, and the study that nothing disturbed."""

    desk: Desk
    server: ForkServer
    whole: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        calm = self.victim()
        assert calm.run() == 0, calm.errors.read_text()
        self.whole = found(calm.store, calm.study)

    def victim(self) -> Victim:
        """A new study."""
        return Victim(self.desk, self.server, f"study-{next(NUMBERS)}", TRIALS)

    def assert_survives(self, name: str, action: str, nth: int) -> None:
        """Disturb a driver, resume its study, and compare."""
        victim = self.victim()
        trouble = AWAY_FOR_A_WHILE if name in NEED_AN_OUTBOX else {}
        ended = victim.run(failpoint=f"{name}:{action}:{nth}", trouble=trouble)
        assert victim.lines("reached") == [[name]]
        expected = (0,) if (name, action) == ("mid_outbox_append", "raise") else ENDS[action]  # it waits for room
        assert ended in expected, victim.errors.read_text()
        victim.compare()
        if ended:
            assert victim.run() == 0, victim.errors.read_text()
            victim.compare()
        assert (victim.lost, victim.lost_reruns()) == (0, 0), "an acknowledged end was lost"
        assert victim.redone() <= 1, "more than one checkpoint interval was done again"
        assert_whole(victim.store, victim.study, TRIALS)
        assert found(victim.store, victim.study) == self.whole
        self.assert_one_bundle(victim)

    def assert_one_bundle(self, victim: Victim) -> None:
        """What stands under the name of a bundle is one, and the study says which."""
        bundles = sorted(Path(victim.study.folder).glob("bundle-*"))
        assert victim.store.study(victim.name).result == {"bundle": str(bundles[-1])}
        assert all((each / "weights").read_text() == "1" for each in bundles)
