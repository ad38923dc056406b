"""`deepmine-auto resume`: a study goes on where it stood."""

from __future__ import annotations

import click

from deepmine_auto.commands.options import as_json, database, storage_options


@click.command()
@click.argument("study")
@storage_options
@click.option("--trials", type=int, metavar="N", help="End after so many trials in all, instead of as it was begun.")
@click.option("--time-budget", metavar="TIME", help="End after this time in all: 90s, 5m, 1h30m.")
@click.option("--max-gpu-hours", type=float, metavar="X", help="End after so many hours in all, over all GPUs held.")
@as_json
def resume(
    study: str,
    storage: str | None,
    storage_file: str | None,
    trials: int | None,
    time_budget: str | None,
    max_gpu_hours: float | None,
    as_json: bool,
) -> None:
    """Go on with STUDY after Ctrl-C, a crash, or with a larger budget: the same trials, from their checkpoints."""
    from deepmine_auto.commands.running import conducted
    from deepmine_auto.searching import resume as go_on

    place = database(storage, storage_file)
    change = {"trials": trials, "time_budget": time_budget, "max_gpu_hours": max_gpu_hours}
    conducted(lambda watcher: go_on(study, place, watcher, **change), place, as_json)
