"""`deepmine-auto export`: write a bundle from a study once more."""

from __future__ import annotations

import click

from deepmine_auto.commands.options import database, storage_options


@click.command()
@click.argument("study")
@click.option("--trial", type=int, metavar="N", help="Export trial N instead: the weights of the three best are kept.")
@click.option("--output", metavar="DIR", help="The new folder. [default: in the study's folder]")
@storage_options
def export(study: str, trial: int | None, output: str | None, storage: str | None, storage_file: str | None) -> None:
    """Export the winner of STUDY once more, verified as always, and print the bundle's folder."""
    from pathlib import Path

    from deepmine_auto.exporting import export_again

    folder = Path(output).expanduser() if output else None
    click.echo(export_again(study, database(storage, storage_file), trial, folder))
