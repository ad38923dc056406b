"""`deepmine-auto resume`: a study goes on where it stood."""

from __future__ import annotations

from typing import Any

import click

from deepmine_auto.commands.options import as_json, database, listed, storage_options, workers_options


@click.command()
@click.argument("study")
@storage_options
@click.option("--trials", type=int, metavar="N", help="End after so many trials in all, instead of as it was begun.")
@click.option("--time-budget", metavar="TIME", help="End after this time in all: 90s, 5m, 1h30m.")
@click.option("--max-gpu-hours", type=float, metavar="X", help="End after so many hours in all, over all GPUs held.")
@click.option("--space", metavar="NAME|FILE", help="Search this space from here on.")
@click.option("--attention", metavar="A,B", multiple=True, help="Choose from these attention variants from here on.")
@click.option("--tuning", metavar="A,B", multiple=True, help="Choose from these tunings from here on.")
@click.option("--technique", metavar="A,B", multiple=True, help="Search these techniques too from here on.")
@workers_options
@click.option("--take-over", is_flag=True, help="Take the study from who holds it, and go on in its place.")
@as_json
def resume(
    study: str, storage: str | None, storage_file: str | None, take_over: bool, as_json: bool, **options: Any
) -> None:
    """Go on with STUDY after Ctrl-C or a crash, with a larger budget, or elsewhere: the same trials, from where they
    stood."""
    from deepmine_auto.commands.running import conducted
    from deepmine_auto.searching import resume as go_on

    place = database(storage, storage_file)
    change = {**options, **{each: listed(options[each]) for each in ("attention", "tuning", "technique")}}
    conducted(lambda watcher: go_on(study, place, watcher, take_over=take_over, **change), as_json)
