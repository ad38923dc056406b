"""What a person sees of a running study without a terminal: one line an event, each with the time that has passed."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from deepmine_auto.host import the_host
from deepmine_auto.interrupts import raise_if_lost
from deepmine_auto.storage.store import shown
from deepmine_auto.study.agenda import Agenda
from deepmine_auto.study.baseline import name_of
from deepmine_auto.study.budget import duration
from deepmine_auto.study.finals import REPEATS
from deepmine_auto.study.ledger import TOLD
from deepmine_auto.terminal.progress import Beside, best_trial, reopened_at, words_of
from deepmine_auto.terminal.words import plain
from deepmine_auto.watcher import Watcher


class Onlooker(Watcher):
    """A watcher that shows something, from `with` on; `typed` is how a command takes the study, once it is open."""

    agenda: Agenda
    beside: Beside

    def __init__(self, on_open: Callable[[], None]) -> None:
        self.typed: str | None = None
        self.on_open = on_open

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Show nothing more."""

    def opened(self, agenda: Agenda, notes: tuple[str, ...], baseline: Callable[[], float | None]) -> None:
        """Remember what there is to look at."""
        spec = agenda.ledger.study.spec
        name = name_of(the_host().get("task", spec["task"]), spec["parts"]["train"])
        self.agenda, self.beside = agenda, Beside(name, baseline)
        self.typed = agenda.ledger.study.typed
        self.on_open()

    def tick(self) -> None:
        """Look whether an interrupt was lost on its way."""
        raise_if_lost()


class EventLines(Onlooker):
    """Writes one line an event with `write`."""

    def __init__(self, write: Callable[[str], Any], on_open: Callable[[], None]) -> None:
        super().__init__(on_open)
        self.write = write

    def opened(self, agenda: Agenda, notes: tuple[str, ...], baseline: Callable[[], float | None]) -> None:
        """Say what is searched, and what the user should know of the data."""
        super().opened(agenda, notes, baseline)
        for line in (*headline(agenda), *notes):
            self._say(line)

    def happened(self, kind: str, text: str, trial: int | None) -> None:
        """Write an event that is worth a line."""
        line = told(self.agenda, self.beside, kind, text, trial) if self.typed else plain(text)
        if line:
            self._say(line)

    def concluding(self) -> None:
        """Say that the end has begun."""
        self._say("trials are over: the bundle is made and checked")

    def _say(self, line: str) -> None:
        spent = self.agenda.ledger.spent if self.typed else 0.0
        self.write(f"{duration(spent):>6}  {plain(line)}")


def headline(agenda: Agenda) -> tuple[str, str]:
    """Two lines: the study, its rows and its budget; what it is searched for, and how."""
    study, spec = agenda.ledger.study, agenda.ledger.study.spec
    parts = " / ".join(f"{spec['parts'][part]:,}" for part in ("train", "validation", "test"))
    workers = f"{agenda.slots} worker" + ("s" if agenda.slots > 1 else "")
    objectives = "  ".join(f"objective {shown(each.name)}, {each.direction}" for each in study.objectives)
    limits = "".join(f"  limit {each}" for each in study.limits)
    return (
        f"{study.name}  {parts} rows  {agenda.budget}, {workers}",
        f"{objectives}{limits}  sampler {spec['sampler']}  pruner {spec['pruner']}",
    )


def told(agenda: Agenda, beside: Beside, kind: str, text: str, number: int | None) -> str | None:
    """An event in words; None for what is not worth a line."""
    if kind == "begun":
        first = text == "rerun" and number == reopened_at(agenda)
        finalists = ", ".join(map(str, agenda.finalists()))
        again = f"trained again on other {agenda.ledger.study.varied}s, {REPEATS} times each"
        return f"finals: trials {finalists} are {again}" if first else None
    if kind == "ended" and number is not None:
        return None if text in TOLD else _ended(agenda, beside, text, number)
    if kind == "rerun ended" and number is not None:
        row = agenda.ledger.reruns[number]
        value = "failed" if row["value"] is None else f"{row['value']:.4f}"
        return f"rerun {row['repeat'] + 1} of trial {row['trial']}: {value}"
    return plain(text)


def _ended(agenda: Agenda, beside: Beside, cause: str, number: int) -> str:
    values = agenda.best_values()
    value = values.get(number)
    if value is None:
        return f"trial {number} ended ({cause}) before its first evaluation"
    share = agenda.ledger.history.standing["trial", number].reports[-1]["share"] / 10
    stopped = {"pruned": f"pruned at {share:.0f} %", "deadline": f"out of time at {share:.0f} %"}
    how = {**stopped, "cancelled": "cancelled"}.get(cause, "complete")
    best = f"  new best {beside.lead(value, agenda)}".rstrip() if best_trial(agenda, values) == number else ""
    return f"trial {number} {how}  {value:.4f}  {words_of(agenda, number)}{best}"
