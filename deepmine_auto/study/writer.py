"""Every write of a ledger goes through here: to the study database, or to the outbox while that cannot be reached.

Each write may be done again and then changes nothing, because a lost acknowledgement looks like a lost write.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from deepmine_auto import failpoints
from deepmine_auto.errors import DatabaseAway
from deepmine_auto.storage import tables
from deepmine_auto.storage.away import is_away, probe
from deepmine_auto.storage.store import Conflict, Store, StudyRow
from deepmine_auto.study.outbox import Entry, Outbox, left_in

MOST_AWAY = 600.0
"""Seconds without a database after which the driver gives up; what it has is kept."""

SECONDS_BETWEEN_PROBES = 1.0

TABLES = {"verdict": tables.verdicts, "attempt": tables.attempts, "rerun": tables.reruns, "event": tables.events}
"""Entries that are one new row of ours; all others name what the store is to do."""

Watch = Callable[[str, str, int | None], None]
"""Told of events as (kind, text, trial)."""


class Writer:
    """Writes for one study and one epoch. `regain` takes the study's lock again, where it can be lost."""

    def __init__(self, store: Store, study: StudyRow, epoch: int, watch: Watch, regain: Callable[[], None]) -> None:
        self.store, self.study, self.epoch, self.watch, self.regain = store, study, epoch, watch, regain
        self.outbox = Outbox(Path(study.folder), epoch)
        self.away_since: float | None = None
        self.full = self.telling = False
        self.news: deque[tuple[str, str]] = deque()
        self.reached = threading.Event()

    # -- writing -----------------------------------------------------------------------------------------------------

    def write(self, op: str, **row: Any) -> None:
        """Write an entry where it lasts: when this returns, no crash loses it. While neither the database nor the disk
        takes it, wait. Raises DatabaseAway where that is too long."""
        self._bring(Entry(op, row))
        self._tell()

    def add_trial(self, number: int, proposed: FrozenTrial) -> FrozenTrial | None:
        """Write a new trial, and return its row; None while the database cannot be reached."""
        try:
            return self.store.add_trial(self.study.id, number, proposed)
        except Exception as error:
            self._lose(error)
            self._tell()
            return None

    def _bring(self, entry: Entry) -> None:
        until = time.monotonic() + MOST_AWAY
        while not self._written(entry):
            try:
                self.outbox.append(entry)
            except OSError as error:
                self._wait(error, until, entry)
            else:
                self.full = False
                return

    def _written(self, entry: Entry) -> bool:
        if self.away_since is None:
            try:
                self._apply(entry)
            except Exception as error:
                self._lose(error)
        return self.away_since is None

    def _apply(self, entry: Entry) -> None:
        apply(self.store, self.study.id, entry)

    def _wait(self, error: OSError, until: float, entry: Entry) -> None:
        """Wait for room in the outbox, or for the database."""
        if time.monotonic() > until:
            what = f"Neither the study database nor {self.outbox.file} can be written: {error.strerror}."
            raise DatabaseAway(what, f"Make room, then: deepmine-auto resume {self.study.typed}") from error
        if not self.full:
            self.full = True
            self.watch("full", f"waiting: {self.outbox.file} cannot be written: {error.strerror}", None)
        time.sleep(SECONDS_BETWEEN_PROBES)
        if self.reached.is_set():
            self._come_back(entry)

    # -- away and back -----------------------------------------------------------------------------------------------

    def _lose(self, error: Exception) -> None:
        """Go on without the database; whatever else is wrong is raised."""
        if not is_away(error):
            raise error
        if self.away_since is None:
            self.away_since = time.monotonic()
            text = f"the study database cannot be reached: work goes on, and {self.outbox.file} keeps what it finds"
            self.news.append(("away", text))
            self._begin_to_probe()

    def _tell(self) -> None:
        """Tell what has become of the database. Whoever hears it writes an event, which may bring more to tell."""
        while self.news and not self.telling:
            self.telling = True
            try:
                self.watch(*self.news.popleft(), None)
            finally:
                self.telling = False

    def _begin_to_probe(self) -> None:
        self.reached.clear()
        threading.Thread(target=self._probe, daemon=True).start()

    def _probe(self) -> None:
        while not probe(self.store.storage):
            time.sleep(SECONDS_BETWEEN_PROBES)
        self.reached.set()

    def connected(self) -> bool:
        """Whether the database can be written. After a time without it, what waited is written first.

        Raises DatabaseAway after ten minutes, and StudyHeld if another driver has taken the study meanwhile.
        """
        if self.away_since is None:
            return True
        if self.reached.is_set() and self._come_back():
            self._tell()
            return self.connected()
        if time.monotonic() - self.away_since > MOST_AWAY:
            raise self.given_up()
        return False

    def settle(self) -> None:
        """At the end: raise DatabaseAway if anything still waits."""
        if not self.connected():
            raise self.given_up()

    def given_up(self) -> DatabaseAway:
        """What is said when the driver ends without its database."""
        what = f"The study database cannot be reached; {len(self.outbox)} entries wait in {self.outbox.file}."
        return DatabaseAway(what, f"They are written first by: deepmine-auto resume {self.study.typed}")

    def _come_back(self, *more: Entry) -> bool:
        """Write what waits, and what finds no room to wait."""
        try:
            self.regain()
            waited = _replay(self.outbox, self._apply)
            for entry in more:
                self._apply(entry)
        except Exception as error:
            if not is_away(error):
                raise
            self._begin_to_probe()
            return False
        self.away_since, self.full = None, False
        self.news.append(("back", f"the study database is back: {waited} entries were written to it"))
        return True


# -- the outbox --------------------------------------------------------------------------------------------------------


def apply(store: Store, study_id: int, entry: Entry) -> None:
    """Write an entry to the database. Raises Conflict where something else stands in its place."""
    ops: dict[str, Callable[..., None]] = {
        "report": partial(store.add_report, study_id),
        "show": store.show_value,
        "tell": store.finish_trial,
        "end rerun": partial(store.finish_rerun, study_id),
        "save": partial(store.note_saved, study_id),
        "spent": partial(store.note_spent, study_id),
        "result": partial(store.set_result, study_id),
    }
    if entry.op in TABLES:
        store.add(TABLES[entry.op], study_id, entry.row)
    else:
        ops[entry.op](**entry.row)


def replay_left(store: Store, study: StudyRow) -> list[str]:
    """Write what an earlier driver could not, before anything is read; return what happened, in words.

    Where a driver has handed out work since without it, it is late, and is kept beside.
    """
    left = left_in(Path(study.folder))
    if not left:
        return []
    newest = max([left[-1].epoch, *(row["epoch"] for row in store.rows(tables.attempts, study.id))])

    def apply_left(entry: Entry) -> None:
        with suppress(Conflict):  # `studies stop` may have ended it in between; what stands there is the truth
            apply(store, study.id, entry)

    told = [_replay_left(each, apply_left) if each.epoch == newest else _put_aside(each) for each in left]
    return [each for each in told if each]


def _replay_left(outbox: Outbox, apply: Callable[[Entry], None]) -> str:
    waited = _replay(outbox, apply)
    return f"{waited} entries that waited for the database were written to it" if waited else ""


def _replay(outbox: Outbox, apply: Callable[[Entry], None]) -> int:
    """Write what waits, in order, and what came to it meanwhile; then forget it. Return how much it was."""
    written = 0
    while entries := outbox.entries(after=written):
        for entry in entries:
            apply(entry)
            failpoints.reach("mid_replay")
        written += len(entries)
    outbox.clear()
    return written


def _put_aside(outbox: Outbox) -> str:
    waited = len(outbox)
    return f"{waited} entries of a driver that was overtaken are not counted: {outbox.put_aside()}"
