"""The live view of a running study on a terminal."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from deepmine_auto.study.agenda import Agenda
from deepmine_auto.study.budget import duration
from deepmine_auto.terminal.keys import Keys
from deepmine_auto.terminal.progress import ENDINGS, Line, Progress, progress_of
from deepmine_auto.terminal.watching import Onlooker, headline, told
from deepmine_auto.terminal.words import Scale, plain, sparkline

DRAWN_A_SECOND = 4
EVENTS = 4
NARROW = 60
"""Below so many columns curves give way to words."""

OTHER_LINES = 11
"""Lines that are no running trials."""

PICTURE_SHARE = 50.0
"""After a picture, so many times the time that it took pass before the next; a quarter of a second at least."""


class LiveView(Onlooker):
    """Draws pictures that `tick` takes, so that the drawing thread never reads what is being written."""

    def __init__(self, on_open: Callable[[], None], console: Console | None = None) -> None:
        super().__init__(on_open)
        self.console = console or Console(stderr=True, highlight=False)
        self.head: list[Text] = []
        self.picture: Progress | None = None
        self.events: deque[str] = deque(maxlen=EVENTS)
        self.taken = self.due = 0.0
        self.phase: str | None = None
        self.keys = Keys()
        self.live = Live(console=self.console, refresh_per_second=DRAWN_A_SECOND, get_renderable=self.drawn)

    def __enter__(self) -> Self:
        self.live.start()
        self.keys.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.keys.close()
        try:
            if self.typed:
                self._take("stopped" if error else "done")
        finally:  # or the terminal has no cursor
            self.live.transient = self.typed is None  # a refusal needs no picture above it
            self.live.stop()

    def opened(self, agenda: Agenda, notes: tuple[str, ...], baseline: Callable[[], float | None]) -> None:
        """Begin to draw."""
        super().opened(agenda, notes, baseline)
        self.head = [_cut(Text(plain(line), style="dim" if at else "bold")) for at, line in enumerate(headline(agenda))]
        for note in notes:
            self.console.print(Text(plain(note)))
        self._take()

    def happened(self, kind: str, text: str, trial: int | None) -> None:
        """Keep the last events."""
        line = told(self.agenda, self.beside, kind, text, trial) if self.typed else plain(text)
        if line:
            spent = self.agenda.ledger.spent if self.typed else 0.0
            self.events.append(f"{duration(spent):>6}  {line}")
        self.tick()

    def tick(self) -> None:
        """Hear of keys, and take another picture, if the last one is old enough."""
        super().tick()
        if self.typed and "q" in self.keys.pressed() and not self.agenda.stopped:
            self.agenda.stop()
            self.happened("stopping", "no new trial begins; the finals follow those that run", None)
        if self.typed and time.monotonic() >= self.due:
            self._take()

    def concluding(self) -> None:
        """Trials and reruns are over."""
        self._take("exporting")

    def _take(self, phase: str | None = None) -> None:
        start = time.monotonic()
        self.phase = phase or self.phase
        self.picture, self.taken = progress_of(self.agenda, self.beside, self.phase), start
        took = time.monotonic() - start
        self.due = start + max(1 / DRAWN_A_SECOND, PICTURE_SHARE * took)

    def drawn(self) -> RenderableType:
        """What the terminal shows now; called by the drawing thread."""
        picture = self.picture
        if picture is None or self.typed is None:
            return Text("reading the data and starting the workers ...", style="dim")
        past, width = time.monotonic() - self.taken, self.console.width
        parts: list[RenderableType] = [*self.head, *best_lines(picture, width), *bar_lines(picture, past, width)]
        parts += [running_table(picture, width, max(1, self.console.height - OTHER_LINES))] if picture.running else []
        parts += [Text(each, style="dim", no_wrap=True, overflow="ellipsis") for each in tuple(self.events)]
        if picture.phase not in ENDINGS:
            keys = "q: stop after the running trials   " if self.keys.saved else ""
            keys += f"ctrl-c: stop now   go on later: deepmine-auto resume {plain(self.typed)}"
            parts.append(Text(keys, style="dim"))
        return Group(*parts)


def best_lines(picture: Progress, width: int) -> list[Text]:
    """The best trial so far, with its model, its lead and its curve."""
    best = picture.best
    if best is None or best.value is None:
        return [Text("best -  no trial has been evaluated yet")]
    curve = "" if width < NARROW else f"  {sparkline(best.curve, picture.scale, 10)}"
    first = Text.assemble(("best ", "bold"), (f"{best.value:.4f}", "bold green"), f"  {best.label}  {best.lead}{curve}")
    return [_cut(first), _cut(Text(f"     {best.words}"))]


def bar_lines(picture: Progress, past: float, width: int) -> list[RenderableType]:
    """The bar, the phase, how many trials there are in each state, and the time."""
    ended = sum(count for state, count in picture.counts.items() if state != "running")
    trials = f"{ended}/{picture.asked} trials" if picture.asked else f"{ended} trials"
    states = "  ".join(f"{count} {state}" for state, count in picture.counts.items() if count)
    times = duration(picture.spent + past)
    left = "" if picture.left is None else f"   about {duration(max(0.0, picture.left - past))} left"
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        ProgressBar(total=1.0, completed=picture.share, width=max(8, min(30, width // 4))),
        _cut(Text.assemble((picture.phase, "bold"), f"  {trials}  {times}{left}")),
    )
    return [grid, _cut(Text(f"     {states}", style="dim"))]


def running_table(picture: Progress, width: int, most: int) -> Table:
    """A row for each running trial or rerun: number, model in words, share, value, curve, rank."""
    wide = width >= NARROW
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(no_wrap=True, justify="right")
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for _ in range(4 if wide else 2):
        grid.add_column(no_wrap=True, justify="right")
    for line in picture.running[:most]:
        grid.add_row(*_cells(line, picture.scale, wide))
    if len(picture.running) > most:
        grid.add_row("", Text(f"and {len(picture.running) - most} more", style="dim"))
    return grid


def _cells(line: Line, scale: Scale, wide: bool) -> list[Text]:
    value = "-" if line.value is None else f"{line.value:.4f}"
    cells = [line.label, line.words, f"{line.share / 10:.0f}%", value]
    if wide:
        cells += [sparkline(line.curve, scale, 8).ljust(8), "" if line.rank is None else f"rank {line.rank}"]
    return [Text(each) for each in cells]


def _cut(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text
