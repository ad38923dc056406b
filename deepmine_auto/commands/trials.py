"""`deepmine-auto trials`: every trial of a study."""

from __future__ import annotations

import click

from deepmine_auto.commands.options import as_json, database, print_json, storage_options, width


@click.command()
@click.argument("study", required=False)
@storage_options
@as_json
def trials(study: str | None, storage: str | None, storage_file: str | None, as_json: bool) -> None:
    """List the trials of STUDY, running and failed ones too. The newest study, unless you name one."""
    from deepmine_auto.commands.outcome import trial_table
    from deepmine_auto.terminal.looking import see

    seen = see(database(storage, storage_file), study)
    if as_json:
        print_json({"study": seen.name, "trials": [each.to_json() for each in seen.trials]})
    else:
        click.echo(trial_table(seen.trials, width()))
