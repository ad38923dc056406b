"""What is to be done next: an unfinished trial, a new one, a rerun, or nothing. Executors ask here."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any

from deepmine_auto.errors import DeepmineError
from deepmine_auto.messages import (
    BEFORE_TASK,
    WHOLE,
    Assignment,
    Beat,
    Because,
    Cause,
    Ended,
    Message,
    Reported,
    Saved,
)
from deepmine_auto.study import hanging
from deepmine_auto.study.budget import REFIT_SHARE, Budget, most_reserved, reserve
from deepmine_auto.study.finals import Rerun, finalists, in_order
from deepmine_auto.study.giving_up import AllFailed
from deepmine_auto.study.history import GIVEN_UP, SEARCH_ENDED, Key
from deepmine_auto.study.ledger import Ledger
from deepmine_auto.study.remaining import UsedUp
from deepmine_auto.study.setting_aside import NothingInItsPlace

SECONDS_BETWEEN_NOTES = 60.0
"""How long a session has lasted is written so often, where no report says it: a budget holds over all sessions."""

EVALUATIONS_KEPT = 99
"""Of so many, the newest, the seconds are known: what the end takes is asked at every message."""


class Agenda:
    """One study's work, handed out over `slots` workers. `closing` estimates the seconds of export and checks;
    `unavailable` says why params cannot be trained here, because a plugin of an earlier trial is gone; `refit_seconds`
    estimates what follows the closing, where the winner is to be trained once more."""

    def __init__(
        self,
        ledger: Ledger,
        budget: Budget,
        slots: int,
        closing: Callable[[], float],
        unavailable: Callable[[Mapping[str, Any]], str] = lambda _: "",
        refit_seconds: Callable[[], float] | None = None,
    ) -> None:
        self.ledger, self.budget, self.slots, self.closing = ledger, budget, slots, closing
        self.unavailable, self.refit_seconds = unavailable, refit_seconds
        ledger.able_here = self._able_here
        self.running: dict[Key, Assignment] = {}
        self.left: deque[tuple[Key, Because]] = deque((key, "resumed") for key in ledger.unfinished())
        self.heard_at: dict[Key, float] = {}
        self.judging_at: dict[Key, float] = {}  # it does not hang then, but nor may it judge for ever past the deadline
        self.spoken: set[Key] = set()  # whose worker has said something since it was handed out
        self.beats: dict[Key, Beat] = {}
        self.took = deque[Sequence[float]](maxlen=EVALUATIONS_KEPT)
        self.stopped = ledger.history.search_ended
        self.refused_at: int | None = None  # so many trials had ended when there was nothing to propose

    # -- what executors ask ------------------------------------------------------------------------------------------

    def next(self) -> Assignment | None:
        """The next piece of work, or None: then ask again after the next message or a moment, unless `done`.

        Raises DatabaseAway where the database stays away for too long.
        """
        if not self.ledger.writer.connected():
            return None
        assignment = self._adopted() or self._searched() or self._rerun()
        if assignment is not None:
            self.running[assignment.key] = assignment
            self.heard_at[assignment.key] = time.monotonic()
            self.spoken.discard(assignment.key)
            self.ledger.watch("begun", assignment.kind, assignment.number)
        return assignment

    @property
    def done(self) -> bool:
        """Whether nothing runs and nothing will."""
        return not self.running and not self.left and not self._may_search() and not self._reruns_left()

    def heard(self, key: Key, message: Message) -> bool:
        """Take a worker's message; return whether it shall go on."""
        self.ledger.writer.connected()  # there may be no other occasion to see that the database is back
        assignment = self.running.get(key)
        if assignment is None:
            told = f"{key[0]} {key[1]} sent a message after its end; it is not counted"
            self.ledger.event("late", told, self.ledger.history.trial_of(key))
            return False
        self.ledger.note_spent(after=SECONDS_BETWEEN_NOTES)
        self.spoken.add(key)
        if isinstance(message, Beat) and message.judges:
            self.judging_at[key] = time.monotonic()
            return True
        self.heard_at[key] = time.monotonic()
        if isinstance(message, Ended) and message.cause == "lost":  # one of its processes died, and its worker says so
            self.lost(key, "lost", message.reason)
            return False
        keep = self._take(assignment, message)
        if not keep:
            del self.running[key]
        return keep

    def _take(self, assignment: Assignment, message: Message) -> bool:
        if isinstance(message, Reported):
            self.took.append(message.took)
            # what has taken its last step is complete, and says so next, whatever the time is
            out_of_time = message.share < WHOLE and self._out_of_time(assignment)
            return self.ledger.report(assignment, message, out_of_time=out_of_time)
        if isinstance(message, Saved):
            self.ledger.saved(assignment, message)
            return True
        if isinstance(message, Beat):
            return self._beaten(assignment, message)
        if message.cause == "memory" and self._may_halve(assignment):
            self._say_halved(assignment)
            self.left.append((assignment.key, "memory"))
        else:
            self.ledger.end(assignment.key, message)
        return False

    def _beaten(self, assignment: Assignment, message: Beat) -> bool:
        """Look at the clock between two reports: an evaluation may be further away than the deadline."""
        self.beats[assignment.key] = message
        if not self._out_of_time(assignment):
            return True
        self.ledger.stop_at_deadline(assignment.key)
        return False

    def lost(self, key: Key, because: Because, why: str) -> None:
        """A worker went away: its work is handed out again under the same number, but not for ever, and with half the
        batch at a time where it took too much memory."""
        if (assignment := self.running.pop(key, None)) is None:
            return
        self.ledger.event(because, f"{key[0]} {key[1]} lost its worker: {why}", self.ledger.history.trial_of(key))
        if because == "memory" and self._may_halve(assignment):
            self._say_halved(assignment)
            self.left.append((key, because))
        elif because != "memory" and self.ledger.history.may_try_again(key, because):
            self.left.append((key, because))
        else:
            times = len(self.ledger.history.of(*key).attempts)
            cause: Cause = "memory" if because == "memory" else "lost"
            self.ledger.end(key, Ended(cause, reason=f"its worker went away, the last of {times} times: {why}"))

    def lost_before(self, key: Key) -> bool:
        """Whether something that runs has lost a worker already."""
        return any(row["because"] == "lost" for row in self.ledger.history.of(*key).attempts)

    def hung(self) -> list[tuple[Key, str]]:
        """What runs and has not been heard of for much too long, with the reason; whoever runs it must end it, and then
        say `lost`."""
        now, found = time.monotonic(), []
        for key in self.running:
            most = hanging.patience(key, self.ledger.history.standing, key in self.spoken)
            silent = now - max(self.heard_at[key], self.judging_at.get(key, 0.0))
            if silent > most:
                found.append((key, f"no report for {silent:.0f} s, where {most:.0f} s are patience enough"))
        return found

    def overdue(self) -> set[Key]:
        """What runs although its time is over. Whoever works on it stops at its next message; where nobody does, or is
        silent, whoever runs it must end it, and then say `give_up`."""
        return {key for key, each in self.running.items() if self._out_of_time(each)}

    def give_up(self, key: Key) -> None:
        """End what is overdue with what it has reported."""
        if self.running.pop(key, None):
            self.ledger.stop_at_deadline(key)

    def excuse(self, since: float) -> None:
        """Take off everybody's silence the time from `since` to now, in which this driver itself stood still."""
        now = time.monotonic()
        for each in (self.heard_at, self.judging_at):
            each.update({key: min(now, at + now - since) for key, at in each.items()})

    def stop(self) -> None:
        """Begin no new trial; what runs goes on, then the finals follow."""
        self.stopped = True

    # -- search ------------------------------------------------------------------------------------------------------

    def _adopted(self) -> Assignment | None:
        while self.left:
            key, because = self.left.popleft()
            if gone := self._gone(key):
                self.ledger.end(key, Ended("cancelled", reason=gone))
            elif assignment := self.ledger.adopt(key, because):
                return assignment
        return None

    def _gone(self, key: Key) -> str:
        """Why something unfinished cannot go on here; empty where it can."""
        return self.unavailable(self.ledger.params(self.ledger.history.trial_of(key)))

    def _searched(self) -> Assignment | None:
        if not self._may_search() or (self.running and self._ended_trials() == self.refused_at):
            return None
        try:
            return self.ledger.ask()
        except (AllFailed, NothingInItsPlace, UsedUp) as why:
            self.refused_at = self._ended_trials()
            self._search_ends(why)
            return None

    def _ended_trials(self) -> int:
        return sum(each.state.is_finished() for each in self.ledger.trials.values())

    def _search_ends(self, why: DeepmineError) -> None:
        """Let the finals follow, or raise why not, once nothing runs that might still win. That is written first:
        a restart comes here again, by the rows, if it was not, and begins no trial before the finals if it was."""
        newest = len(self.ledger.trials) - 1
        if self.finalists():
            self.ledger.event(SEARCH_ENDED, f"{why.what} The finals follow.", newest)
            self.stop()
        elif not self.running:
            self.ledger.event(GIVEN_UP, f"{why.what} No trial may win.", newest)
            raise why

    def _may_search(self) -> bool:
        full = self.budget.trials is not None and len(self.ledger.trials) >= self.budget.trials
        return not (self.stopped or full or self._search_is_over() or self._finals_begun())

    def _finals_begun(self) -> bool:
        """Whether reruns were begun since the budget was last widened."""
        return any(number >= self.ledger.study.spec.get("reopened", 0) for number in self.ledger.reruns)

    def seconds_left(self) -> float | None:
        """Seconds until the time or the GPU hours are used up, whichever comes first; None without such a budget."""
        budget, ledger = self.budget, self.ledger
        left = [] if budget.seconds is None else [budget.seconds - ledger.spent]
        if budget.gpu_hours is not None and ledger.gpus:
            left.append((budget.gpu_hours - ledger.gpu_hours) * 3600 / ledger.gpus)
        return min(left, default=None)

    def _search_is_over(self) -> bool:
        left = self.seconds_left()
        if left is None:
            return False
        whole = self.ledger.spent + left
        if left > most_reserved(whole, self.closing()) + (REFIT_SHARE * whole if self.refit_seconds else 0.0):
            return False  # this is asked at every message: who the finalists are matters near the end alone
        return left <= self._reserve(whole) + self._kept_for_refit(whole)

    def _reserve(self, whole: float) -> float:
        begun, due = self._begun(), in_order(self.finalists())
        seconds = (0.0 if each in begun else self.expected(each.trial) for each in due)
        return reserve(whole, self.closing(), seconds, self.slots)

    def _kept_for_refit(self, whole: float) -> float:
        """Seconds to keep for a refit that was asked for, unless it has no such share of the whole time."""
        seconds = self.refit_seconds() if self.refit_seconds else 0.0
        return seconds if seconds <= REFIT_SHARE * whole else 0.0

    def _may_halve(self, assignment: Assignment) -> bool:
        part = assignment.params.get("training/batch", 1) >> assignment.halvings
        return part > 1 and self.ledger.history.may_try_again(assignment.key, "memory")

    def _say_halved(self, assignment: Assignment) -> None:
        kind, number = assignment.key
        rows = assignment.params["training/batch"] >> assignment.halvings
        text = f"{kind} {number} out of memory with {rows} rows at a time: tried again with {rows // 2}"
        self.ledger.event("memory", text, self.ledger.history.trial_of(assignment.key))

    def _out_of_time(self, assignment: Assignment) -> bool:
        if assignment.kind == "trial":
            return self._search_is_over()
        left = self.seconds_left()
        return left is not None and left <= self.closing()

    # -- finals ------------------------------------------------------------------------------------------------------

    def best_values(self) -> dict[int, float]:
        """The best value of each trial that has reported."""
        return self.ledger.history.best_values()

    def finalists(self) -> list[int]:
        """The trials that are, or would now be, trained again."""
        ledger = self.ledger
        return finalists(ledger.trials.values(), self.best_values(), ledger.direction, self._able_here)

    def _able_here(self, number: int) -> bool:
        return not self.unavailable(self.ledger.params(number))

    def expected(self, trial: int) -> float:
        """Seconds that a rerun of a trial will take: its own whole length, at its own pace."""
        last = self.ledger.history.of("trial", trial).reports[-1]
        first = float(last["metrics"].get(BEFORE_TASK, 0.0))
        return float(last["seconds"]) / (first + (1 - first) * max(1, int(last["share"])) / WHOLE)

    def _rerun(self) -> Assignment | None:
        if any(kind == "trial" for kind, _ in self.running) or self._may_search():
            return None
        left = self._reruns_left()
        return self.ledger.add_rerun(*left[0]) if left else None

    def _reruns_left(self) -> list[Rerun]:
        begun, due = self._begun(), in_order(self.finalists())
        left = (each for each in due if each not in begun)
        # a faster finalist further down does not go first: being fast would then name the winner
        return list(takewhile(lambda each: self._fits(each.trial, before_refit=each in due[:2]), left))

    def _begun(self) -> set[Rerun]:
        return {Rerun(row["trial"], row["repeat"]) for row in self.ledger.reruns.values()}

    def _fits(self, trial: int, *, before_refit: bool) -> bool:
        """Whether a rerun ends in time. The first ones go before a refit: without any, the luckiest trial wins."""
        left = self.seconds_left()
        if left is None:
            return True
        kept = 0.0 if before_refit else self._kept_for_refit(self.ledger.spent + left)
        return self.expected(trial) <= left - self.closing() - kept
