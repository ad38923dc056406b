"""`deepmine-auto resume`: a study goes on where it stood."""

from __future__ import annotations

import click

from deepmine_auto.commands.options import as_json, storage_from, storage_options


@click.command()
@click.argument("study")
@storage_options
@click.option("--trials", type=int, metavar="N", help="End after so many trials in all, instead of as it was begun.")
@click.option("--time-budget", metavar="TIME", help="End after this time in all: 90s, 5m, 1h30m.")
@as_json
def resume(
    study: str,
    storage: str | None,
    storage_file: str | None,
    trials: int | None,
    time_budget: str | None,
    as_json: bool,
) -> None:
    """Go on with STUDY after Ctrl-C, a crash, or with a larger budget: the same trials, from their checkpoints."""
    from deepmine_auto.commands.running import conducted
    from deepmine_auto.searching import resume as go_on
    from deepmine_auto.study.budget import seconds_of

    place = storage_from(storage, storage_file)
    seconds = None if time_budget is None else seconds_of(time_budget)
    conducted(lambda watcher: go_on(study, place, trials=trials, time_budget=seconds, watcher=watcher), place, as_json)
