"""Looking on while a study runs."""

from __future__ import annotations

from collections.abc import Callable

from deepmine_auto.study.agenda import Agenda


class Watcher:
    """What may look on while a study runs; the default does not. `opened` comes once, `happened` and `tick` often."""

    def opened(self, agenda: Agenda, notes: tuple[str, ...], baseline: Callable[[], float | None]) -> None:
        """The study is open; `baseline` is the baseline's validation score once it is known."""

    def happened(self, kind: str, text: str, trial: int | None) -> None:
        """An event."""

    def tick(self) -> None:
        """A message of a worker was written."""

    def concluding(self) -> None:
        """Trials and reruns are over; the test is opened, and the bundle is made."""
