"""What `search` and `resume` share: a study is watched to its end, and its outcome is printed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import click

from deepmine_auto import interrupts
from deepmine_auto.commands.options import print_json, width
from deepmine_auto.commands.outcome import as_text, to_json
from deepmine_auto.searching import Result
from deepmine_auto.terminal.looking import see
from deepmine_auto.terminal.watching import EventLines, Onlooker
from deepmine_auto.watcher import Watcher


def conducted(begin: Callable[[Watcher], Result], as_json: bool) -> None:
    """Run a study under the eyes of an onlooker, and print what it found. An interrupt learns how to go on."""
    with onlooker(interrupts.listen) as watcher:
        try:
            result = begin(watcher)
        except KeyboardInterrupt as interrupt:
            if watcher.typed and not getattr(interrupt, "__notes__", ()):  # who knows better has said so
                interrupt.add_note(f"go on later: deepmine-auto resume {watcher.typed}")
            raise
    study = see(result.storage, result.study)
    if as_json:
        print_json({**to_json(study, result.storage), **({"refit": result.refit} if result.refit else {})})
    else:
        click.echo(as_text(study, width(), result.refit))


def onlooker(on_open: Callable[[], None]) -> Onlooker:
    """The live view on a terminal; lines where there is none, or where nobody looks at it (CI).

    `on_open` is called when the study is open and its workers have started.
    """
    if sys.stderr.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb":
        from deepmine_auto.terminal.live import LiveView

        return LiveView(on_open)
    return EventLines(lambda line: click.echo(line, err=True), on_open)
