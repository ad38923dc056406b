"""`deepmine-auto best`: what a study found."""

from __future__ import annotations

import click

from deepmine_auto.commands.options import as_json, database, print_json, storage_options, width


@click.command()
@click.argument("study", required=False)
@storage_options
@as_json
def best(study: str | None, storage: str | None, storage_file: str | None, as_json: bool) -> None:
    """Show the winner of STUDY, its evidence and its bundle. The newest study, unless you name one."""
    from deepmine_auto.commands.outcome import as_text, to_json
    from deepmine_auto.terminal.looking import see

    place = database(storage, storage_file)
    seen = see(place, study)
    if as_json:
        print_json(to_json(seen, place))
    else:
        click.echo(as_text(seen, width()))
