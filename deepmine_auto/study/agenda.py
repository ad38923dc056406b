"""What is to be done next: an unfinished trial, a new one, a rerun, or nothing. Executors ask here."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from itertools import takewhile

from deepmine_auto.errors import DeepmineError
from deepmine_auto.messages import Assignment, Ended, Message, Reported
from deepmine_auto.study.budget import Budget, reserve
from deepmine_auto.study.finals import REPEATS, Rerun, finalists, in_order
from deepmine_auto.study.ledger import Ledger
from deepmine_auto.study.pruning import oriented

Key = tuple[str, int]

MOST_LOSSES = 5
"""A trial that takes its worker with it so often is not tried again."""


class Agenda:
    """One study's work, handed out over `slots` workers. `closing` estimates the seconds of export and checks."""

    def __init__(self, ledger: Ledger, budget: Budget, slots: int, closing: Callable[[], float]) -> None:
        self.ledger, self.budget, self.slots, self.closing = ledger, budget, slots, closing
        self.running: dict[Key, Assignment] = {}
        self.left: deque[Key] = deque(ledger.unfinished())
        self.losses: Counter[Key] = Counter()
        self.stopped = False

    # -- what executors ask ------------------------------------------------------------------------------------------

    def next(self) -> Assignment | None:
        """The next piece of work, or None: then ask again after the next message, unless `done`."""
        assignment = self._adopted() or self._searched() or self._rerun()
        if assignment is not None:
            self.running[assignment.key] = assignment
            self.ledger.watch("begun", assignment.kind, assignment.number)
        return assignment

    @property
    def done(self) -> bool:
        """Whether nothing runs and nothing will."""
        return not self.running and not self.left and not self._may_search() and not self._reruns_left()

    def heard(self, key: Key, message: Message) -> bool:
        """Take a worker's message; return whether it shall go on."""
        assignment = self.running.get(key)
        if assignment is None:
            self.ledger.event("late", f"{key[0]} {key[1]} sent a message after its end; it is not counted", key[1])
            return False
        if isinstance(message, Reported):
            keep = self.ledger.report(assignment, message, out_of_time=self._out_of_time(assignment))
        else:
            self._ended(assignment, message)
            keep = False
        if not keep:
            del self.running[key]
        return keep

    def lost(self, key: Key, why: str) -> None:
        """A worker went away: its work is handed out again under the same number, but not for ever."""
        assignment = self.running.pop(key, None)
        if assignment is None:
            return
        self.ledger.event("lost", f"{key[0]} {key[1]} lost its worker: {why}", key[1])
        self.losses[key] += 1
        if self.losses[key] < MOST_LOSSES:
            self.left.append(key)
        else:
            self._ended(assignment, Ended("error", reason=f"its worker went away {MOST_LOSSES} times: {why}"))

    def stop(self) -> None:
        """Begin no new trial; what runs goes on, then the finals follow."""
        self.stopped = True

    # -- search ------------------------------------------------------------------------------------------------------

    def _adopted(self) -> Assignment | None:
        while self.left:
            assignment = self.ledger.adopt(*self.left.popleft())
            if assignment is not None:
                return assignment
        return None

    def _searched(self) -> Assignment | None:
        return self.ledger.ask() if self._may_search() else None

    def _may_search(self) -> bool:
        full = self.budget.trials is not None and len(self.ledger.trials) >= self.budget.trials
        return not (self.stopped or full or self._search_is_over() or self.ledger.reruns)

    def _search_is_over(self) -> bool:
        return self.budget.seconds is not None and self.ledger.spent >= self.budget.seconds - self._reserve()

    def _reserve(self) -> float:
        assert self.budget.seconds is not None
        expected = [self.expected(each) for each in self.finalists()]
        reruns = [seconds for seconds in expected for _ in range(REPEATS)]
        return reserve(self.budget.seconds, self.closing(), reruns, self.slots)

    def _ended(self, assignment: Assignment, message: Ended) -> None:
        self.ledger.end(assignment, message)
        reason = self.ledger.unexplained() if assignment.kind == "trial" else None
        if reason is not None:
            remedy = f"See `deepmine-auto trials {self.ledger.study.name}`."
            raise DeepmineError(f"The last trials all failed: {reason.rstrip('.')}.", remedy)

    def _out_of_time(self, assignment: Assignment) -> bool:
        return assignment.kind == "trial" and self._search_is_over()

    # -- finals ------------------------------------------------------------------------------------------------------

    def best_values(self) -> dict[int, float]:
        """The best value of each trial that has reported."""
        best = {number: self.ledger.standing["trial", number].best(self.ledger.direction)
                for kind, number in self.ledger.standing if kind == "trial"}  # fmt: skip
        return {number: row["value"] for number, row in best.items() if row}

    def finalists(self) -> list[int]:
        """The trials that are, or would now be, trained again."""
        return finalists(self.ledger.trials.values(), self.best_values(), self.ledger.direction)

    def expected(self, trial: int) -> float:
        """Seconds that a rerun of a trial will take: its own whole length, at its own pace."""
        last = self.ledger.standing["trial", trial].reports[-1]
        return float(last["seconds"]) * 1000 / max(1, int(last["share"]))

    def _rerun(self) -> Assignment | None:
        if any(kind == "trial" for kind, _ in self.running) or self._may_search():
            return None
        left = self._reruns_left()
        return self.ledger.add_rerun(*left[0]) if left else None

    def _reruns_left(self) -> list[Rerun]:
        begun = {(row["trial"], row["repeat"]) for row in self.ledger.reruns.values()}
        left = (each for each in in_order(self.finalists()) if each not in begun)
        # a faster finalist further down does not go first: being fast would then name the winner
        return list(takewhile(lambda each: self._fits(each.trial), left))

    def _fits(self, trial: int) -> bool:
        if self.budget.seconds is None:
            return True
        return self.ledger.spent + self.expected(trial) <= self.budget.seconds - self.closing()

    def running_value(self, key: Key) -> float | None:
        """The newest value of something that runs."""
        standing = self.ledger.standing.get(key)
        return standing.reports[-1]["value"] if standing and standing.reports else None

    def rank(self, value: float) -> int:
        """The place of a value among the best values of all trials, from 1."""
        mine = oriented(value, self.ledger.direction)
        return 1 + sum(oriented(each, self.ledger.direction) > mine for each in self.best_values().values())
