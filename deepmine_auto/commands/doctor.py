"""`deepmine-auto doctor`: whether this machine is fit for a search."""

from __future__ import annotations

import click

from deepmine_auto.commands.options import as_json, database, print_json, storage_options, width
from deepmine_auto.host import the_host
from deepmine_auto.terminal.words import table


@click.command()
@storage_options
@as_json
def doctor(storage: str | None, storage_file: str | None, as_json: bool) -> None:
    """Look at Python, torch, GPUs, memory, disk, Ray, storage and plugins. Ends with 1 on a fault."""
    from deepmine_auto.diagnosis import Unfit, diagnose

    findings = list(diagnose(database(storage, storage_file), the_host()))
    if as_json:
        print_json({"findings": [each._asdict() for each in findings]})
    else:
        click.echo(table(("", "what", "found"), [(each.state, each.what, each.found) for each in findings], width()))
        for each in findings:
            if each.fix:
                click.echo(f"{each.what}: {each.fix}")
    faults = [each.what for each in findings if each.state == "fault"]
    if faults:
        raise Unfit(f"There is a fault: {', '.join(faults)}.", "" if as_json else "The remedy stands above.")
