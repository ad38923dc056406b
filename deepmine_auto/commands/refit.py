"""`deepmine-auto refit`: the winner, trained on training and validation rows."""

from __future__ import annotations

import click

from deepmine_auto.commands.options import as_json, database, print_json, storage_options


@click.command()
@click.argument("study")
@click.option("--output", metavar="DIR", help="The new folder. [default: in the study's folder]")
@storage_options
@as_json
def refit(study: str, output: str | None, storage: str | None, storage_file: str | None, as_json: bool) -> None:
    """Train the winner of STUDY once more, on the rows of training and validation together.

    It takes as much of its training as was best for the winner, and is exported as a bundle. The locked test is opened
    once more, which is recorded, to say how it compares with the winner.
    """
    from pathlib import Path

    from deepmine_auto.commands.outcome import of_refit
    from deepmine_auto.refitting.all_rows import refit as on_all_rows

    folder = Path(output).expanduser() if output else None
    found = on_all_rows(study, database(storage, storage_file), folder, lambda text: click.echo(text, err=True))
    if as_json:
        print_json(found)
    else:
        click.echo(of_refit(found))
